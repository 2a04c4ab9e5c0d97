"""Few images and many epochs, in what a CPU can do: WRN-28-4 -> WRN-16-2 at half resolution.

Students see 10 % of CIFAR-100's training images for the recipe's 200 epochs, which they learn by
heart, as the paper's students do theirs; the teacher is Table 1's, which saw all for 30 epochs.
All seeds see the same images. 8,000 iterations, where Table 1's students have 11,730.
bfloat16; about 2 hours on two cores once the teacher is there.

    python tools/reproduce.py data-amount --scale cpu
"""
title = 'Amount of data: WRN-28-4 -> WRN-16-2 at half resolution, 10 % of CIFAR-100'
seeds, fast, dump_logits = 3, True, ['train', 'test']
folder = 'mmkd_logit::data_amount/'
kl = folder + 'wrn28-4-half_wrn16-2-half_kl-t20_samples.py'
student = 'WRN-16-2, 10 % of the images, 200 epochs'
longer = ['train_cfg.max_epochs=200', 'param_scheduler.milestones=[100,150]']
runs = dict(
    teacher=dict(
        row='teacher, WRN-28-4, all images, 30 epochs', column='CE', seed=0,
        config='mmkd_logit::wrn/wrn28-4-half.py'),
    ce=dict(row=student, column='CE', config=folder + 'wrn16-2-half_samples.py', overrides=longer),
    **{f'kl-t{tau}': dict(
        row=student, column=f'tau {tau}', config=kl, teacher='teacher',
        overrides=[*longer, *[f'model.loss_kd.tau={tau}'] * (tau != '20')])
       for tau in ('1', '20')},
    mse=dict(
        row=student, column='MSE', teacher='teacher', overrides=longer,
        config=folder + 'wrn28-4-half_wrn16-2-half_mse_samples.py'))
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1', mark='S',
         paper={'ce': 42.51, 'kl-t20': 54.09}),
    dict(title='train top-1 (%)', key='train.accuracy/top1')]
note = (
    "The paper's numbers are of its manuscript of 2020: full resolution, a teacher of 200 epochs, "
    'the best of 3 runs.')
comparisons = [('kl-t20', 'ce'), ('mse', 'ce'), ('mse', 'kl-t20'), ('kl-t20', 'kl-t1')]

"""Table 1's first row, small: 10,000 images of CIFAR-100 at half resolution, WRN-16-1 -> WRN-10-1.

The pictures of the paper from one command on a CPU; 20 of 200 epochs.

    python tools/reproduce.py table1 --scale cpu --epochs 20 --dump-logits train test
"""
title = 'Table 1, small: WRN-16-1 -> WRN-10-1 at half resolution, 10,000 images of CIFAR-100'
few = ['train_dataloader.dataset.dataset.indices=10000', 'train_cfg.val_interval=1']
kl = 'configs/kd/wrn16-1-half_wrn10-1-half_kl-t20.py'
taus = ['1', '3', '5', '20', 'inf']
student = 'WRN-10-1'
runs = dict(
    teacher=dict(
        row='WRN-16-1', column='CE', config='configs/wrn/wrn16-1-half.py', overrides=few),
    ce=dict(row=student, column='CE', config='configs/wrn/wrn10-1-half.py', overrides=few),
    **{f'kl-t{tau}': dict(
        row=student, column=f'tau {tau}', config=kl, teacher='teacher',
        overrides=[*few, *[f'model.loss_kd.tau={tau}'] * (tau != '20')])
       for tau in taus},
    mse=dict(
        row=student, column='MSE', teacher='teacher', overrides=few,
        config='configs/kd/wrn16-1-half_wrn10-1-half_mse.py'))
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1'),
    dict(title='train top-1 (%)', key='train.accuracy/top1')]
comparisons = [('mse', 'kl-t20'), ('mse', 'ce')]

"""Test accuracy against tau under label noise, in what a CPU can do: WRN-28-4 -> WRN-16-2.

Teacher and students on the same 40 % wrong labels of all of CIFAR-100; half resolution, 30
epochs, bfloat16. One teacher; about 6 hours on two cores.

    python tools/reproduce.py noisy-label --scale cpu
"""
title = 'Label noise: WRN-28-4 -> WRN-16-2 at half resolution, 30 epochs, CIFAR-100'
seeds, fast = 2, True
noise = 'symmetric noise 40 %'
folder = 'mmkd_logit::noisy_label/'
kl = folder + 'wrn28-4-half_wrn16-2-half_kl-t1_sym40.py'
taus = ['0.1', '0.5', '1', '5', '20', 'inf']
runs = dict(
    teacher=dict(
        row=noise, column='teacher', config=folder + 'wrn28-4-half_sym40.py', seed=0),
    ce=dict(row=noise, column='CE', config=folder + 'wrn16-2-half_sym40.py'),
    **{f'kl-t{tau}': dict(
        row=noise, column=f'tau {tau}', config=kl, teacher='teacher',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '1'))
       for tau in taus},
    mse=dict(
        row=noise, column='MSE', teacher='teacher',
        config=folder + 'wrn28-4-half_wrn16-2-half_mse_sym40.py'))
metrics = [
    dict(title='test top-1 (%), clean labels', key='test.accuracy/top1'),
    dict(title='train top-1 (%) against the noisy labels', key='train.accuracy/top1'),
    dict(title='train top-1 (%) against the clean labels', key='train.accuracy/clean_top1')]
comparisons = [('kl-t1', 'ce'), ('kl-t1', 'mse'), ('kl-t0.5', 'mse'), ('kl-t1', 'kl-t20')]

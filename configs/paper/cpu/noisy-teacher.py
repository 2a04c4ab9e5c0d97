"""A noisy teacher, in what a CPU can do: WRN-16-2 stopped at 53.77 % train accuracy -> WRN-10-1.

10 % of the images at half resolution, the networks of noisy-label, 100 epochs, float32; one
teacher. About two hours on two cores.

    python tools/reproduce.py noisy-teacher --scale cpu
"""
title = 'Noisy teacher: WRN-16-2 stopped early -> WRN-10-1 at half resolution, 10 % of CIFAR-100'
seeds = 3
row = 'stopped at 53.77 % train accuracy'
folder = 'mmkd_logit::noisy_teacher/wrn16-2-half'
kl, mse = (f'{folder}-stop53_wrn10-1-half_{loss}_samples.py' for loss in ('kl-t1', 'mse'))
runs = dict(
    teacher=dict(row=row, column='teacher', config=f'{folder}_stop53_samples.py', seed=0),
    ce=dict(row=row, column='CE', config='mmkd_logit::data_amount/wrn10-1-half_samples.py'),
    **{f'kl-t{tau}': dict(
        row=row, column=f'tau {tau}', config=kl, teacher='teacher',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '1'))
       for tau in ('1', '5', '20', 'inf')},
    mse=dict(row=row, column='MSE', config=mse, teacher='teacher'))
del kl, mse
comparisons = [('kl-t1', 'mse'), ('kl-t1', 'kl-t20'), ('kl-t1', 'ce')]

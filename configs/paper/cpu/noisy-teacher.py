"""A noisy teacher, in what a CPU can do: WRN-28-4 stopped at 53.77 % train accuracy -> WRN-16-2.

All of CIFAR-100 at half resolution, 30 epochs, bfloat16; one teacher. About 4 hours on two cores.

    python tools/reproduce.py noisy-teacher --scale cpu
"""
title = 'Noisy teacher: WRN-28-4 stopped early -> WRN-16-2 at half resolution, 30 epochs, CIFAR-100'
seeds, fast = 2, True
folder = 'mmkd_logit::noisy_teacher/wrn28-4-half'
row = 'stopped at 53.77 % train accuracy'
taus = ['1', '3', '5', '20', 'inf']
runs = dict(
    teacher=dict(row=row, column='teacher', config=f'{folder}_stop53.py', seed=0),
    **{f'kl-t{tau}': dict(
        row=row, column=f'tau {tau}', config=f'{folder}-stop53_wrn16-2-half_kl-t20.py',
        teacher='teacher', overrides=[f'model.loss_kd.tau={tau}'] * (tau != '20'))
       for tau in taus},
    mse=dict(
        row=row, column='MSE', config=f'{folder}-stop53_wrn16-2-half_mse.py', teacher='teacher'))
comparisons = [('kl-t1', 'mse'), ('kl-t1', 'kl-t20')]

"""A noisy teacher in small: WRN-16-2 stopped early teaches a thin WRN-10-1 on digits.

    python tools/reproduce.py noisy-teacher --scale digits --epochs 6
"""
title = 'Noisy teacher, digits: WRN-16-2 stopped early -> thin WRN-10-1'
row = 'stopped at 53.77 % train accuracy'
folder = 'mmkd_logit::noisy_teacher/wrn16-2'
runs = dict(
    teacher=dict(row=row, column='teacher', config=f'{folder}_stop53_digits.py'),
    ce=dict(row='no teacher', column='CE', config='mmkd_logit::wrn/wrn10-1-thin_digits.py'))
runs.update({
    f'kl-t{tau}': dict(
        row=row, column=f'tau {tau}', teacher='teacher',
        config=f'{folder}-stop53_wrn10-1-thin_kl-t1_digits.py',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '1'))
    for tau in ['1', '3', '20', 'inf']})
runs['mse'] = dict(
    row=row, column='MSE', teacher='teacher',
    config=f'{folder}-stop53_wrn10-1-thin_mse_digits.py')
comparisons = [('kl-t1', 'mse'), ('kl-t1', 'kl-t20')]

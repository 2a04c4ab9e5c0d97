"""A noisy teacher: WRN-28-4 stopped at 53.77 % train accuracy teaches WRN-16-2.

The paper's order is S (small tau best, MSE worst), its numbers are not known.

    python tools/reproduce.py noisy-teacher --seeds 5
"""
title = 'Noisy teacher, CIFAR-100: WRN-28-4 stopped early -> WRN-16-2'
taus = ['1', '3', '5', '20', 'inf']
folder = 'mmkd_logit::noisy_teacher/wrn28-4'
rows = dict(stop53='stopped at 53.77 % train accuracy', epochs10='stopped after 10 epochs')
runs = dict(
    stop53=dict(row=rows['stop53'], column='teacher', config=f'{folder}_stop53.py'),
    epochs10=dict(row=rows['epochs10'], column='teacher', config=f'{folder}_10e.py'),
    ce=dict(row='no teacher', column='CE', config='mmkd_logit::wrn/wrn16-2.py'))
runs.update({
    f'{teacher}_kl-t{tau}': dict(
        row=rows[teacher], column=f'tau {tau}', teacher=teacher,
        config=f'{folder}-stop53_wrn16-2_kl-t{tau}.py')
    for teacher in rows for tau in taus})
runs.update({
    f'{teacher}_mse': dict(
        row=rows[teacher], column='MSE', teacher=teacher,
        config=f'{folder}-stop53_wrn16-2_mse.py')
    for teacher in rows})
comparisons = [('stop53_kl-t1', 'stop53_mse'), ('stop53_kl-t1', 'stop53_kl-t20')]

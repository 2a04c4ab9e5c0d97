"""Label noise in small: teacher and student on the same wrong labels of digits.

    python tools/reproduce.py noisy-label --scale digits --epochs 6
"""
title = 'Label noise, digits: WRN-16-2 -> thin WRN-10-1'
taus = ['0.1', '0.5', '1', '3', '20', 'inf']
rates = ['0.4', '0.6']
folder = 'mmkd_logit::noisy_label/wrn'
rate = {r: [f'train_dataloader.dataset.rate={r}'] * (r != '0.4') for r in rates}
row = {r: f'symmetric, rate {r}' for r in rates}
runs = {f'r{r}': dict(
    row=row[r], column='teacher', config=f'{folder}16-2_sym40_digits.py', overrides=rate[r])
    for r in rates}
runs.update({f'r{r}_ce': dict(
    row=row[r], column='CE', config=f'{folder}10-1-thin_sym40_digits.py', overrides=rate[r])
    for r in rates})
runs.update({f'r{r}_kl-t{tau}': dict(
    row=row[r], column=f'tau {tau}', teacher=f'r{r}',
    config=f'{folder}16-2_wrn10-1-thin_kl-t3_sym40_digits.py',
    overrides=[*rate[r], *[f'model.loss_kd.tau={tau}'] * (tau != '3')])
    for r in rates for tau in taus})
runs.update({f'r{r}_mse': dict(
    row=row[r], column='MSE', teacher=f'r{r}', overrides=rate[r],
    config=f'{folder}16-2_wrn10-1-thin_mse_sym40_digits.py') for r in rates})
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1'),
    dict(title='train top-1 (%), noisy labels', key='train.accuracy/top1'),
    dict(title='train top-1 (%), clean labels', key='train.accuracy/clean_top1')]
comparisons = [(f'r{r}_kl-t0.5', f'r{r}_mse') for r in rates]

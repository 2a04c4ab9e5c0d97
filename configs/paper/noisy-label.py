"""Test accuracy against tau under label noise; teacher and student on the same wrong labels.

The paper's finding (S) is that tau <= 1 is best; its rates are R, its numbers are in a figure.

    python tools/reproduce.py noisy-label --seeds 3
"""
title = 'Label noise, CIFAR-100: WRN-28-4 -> WRN-16-2'
taus = ['0.1', '0.5', '1', '5', '10', '20', 'inf']
noises = dict(sym40='0.4', sym60='0.6', sym80='0.8', human=None)
rows = dict(
    sym40='symmetric 40 %', sym60='symmetric 60 %', sym80='symmetric 80 %', human='CIFAR-100N')
file = dict(sym40='sym40', sym60='sym40', sym80='sym40', human='human')
rate = {n: [f'train_dataloader.dataset.rate={r}'] * (r not in ('0.4', None))
        for n, r in noises.items()}
folder = 'mmkd_logit::noisy_label'
runs = {n: dict(
    row=rows[n], column='teacher', config=f'{folder}/wrn28-4_{file[n]}.py', overrides=rate[n])
    for n in noises}
runs.update({f'{n}_ce': dict(
    row=rows[n], column='CE', config=f'{folder}/wrn16-2_{file[n]}.py', overrides=rate[n])
    for n in noises})
runs.update({f'{n}_kl-t{tau}': dict(
    row=rows[n], column=f'tau {tau}', teacher=n,
    config=f'{folder}/wrn28-4_wrn16-2_kl-t1_{file[n]}.py',
    overrides=[*rate[n], *[f'model.loss_kd.tau={tau}'] * (tau != '1')])
    for n in noises for tau in taus})
runs.update({f'{n}_mse': dict(
    row=rows[n], column='MSE', teacher=n, overrides=rate[n],
    config=f'{folder}/wrn28-4_wrn16-2_mse_{file[n]}.py') for n in noises})
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1'),
    dict(title='train top-1 (%), noisy labels', key='train.accuracy/top1'),
    dict(title='train top-1 (%), clean labels', key='train.accuracy/clean_top1')]
comparisons = [(f'{n}_kl-t0.5', f'{n}_mse') for n in noises]

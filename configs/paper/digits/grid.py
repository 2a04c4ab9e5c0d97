"""The grid in small: two pairs on digits.

    python tools/reproduce.py grid --scale digits --epochs 6
"""
title = 'Grid over alpha and tau, digits'
pairs = dict(wrn16_2='WRN-16-2', wrn10_1='WRN-10-1')
alphas, taus = ['0.1', '0.5', '1.0'], ['1', '3', '20', 'inf']
runs = {t: dict(config=f"mmkd_logit::wrn/{t.replace('_', '-')}_digits.py") for t in pairs}
runs.update({
    f'{t}_a{alpha}_t{tau}': dict(
        row=f'{pairs[t]} -> thin WRN-10-1, tau {tau}', column=f'alpha {alpha}', teacher=t,
        config=f"mmkd_logit::kd/{t.replace('_', '-')}_wrn10-1-thin_kl-t3_digits.py",
        overrides=[f'model.alpha={alpha}'] * (alpha != '1.0')
        + [f'model.loss_kd.tau={tau}'] * (tau != '3'))
    for t in pairs for tau in taus for alpha in alphas})
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1'),
    dict(title='train top-1 (%)', key='train.accuracy/top1')]

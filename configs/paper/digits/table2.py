"""Table 2 in small: other methods on digits.

    python tools/reproduce.py table2 --scale digits --epochs 6
"""
title = 'Other methods, digits, WRN-16-2 -> thin WRN-10-1'
folder = 'mmkd_logit::methods/wrn16-2_wrn10-1-thin'
methods = dict(
    fitnets='FitNets', at='AT', ft='FT', ab='AB', dkd='DKD', dist='DIST',
    std='KL tau 4, standardised logits')
file = dict(std='kl-t4-std')
runs = dict(
    teacher=dict(config='mmkd_logit::wrn/wrn16-2_digits.py'),
    ce=dict(row='CE', config='mmkd_logit::wrn/wrn10-1-thin_digits.py'))
runs.update({
    m: dict(row=methods[m], config=f'{folder}_{file.get(m, m)}_digits.py', teacher='teacher')
    for m in methods})
kd = 'mmkd_logit::kd/wrn16-2_wrn10-1-thin'
runs.update(
    kl=dict(row='KL tau 3', config=f'{kd}_kl-t3_digits.py', teacher='teacher'),
    mse=dict(row='MSE', config=f'{kd}_mse_digits.py', teacher='teacher'))
comparisons = [('mse', 'kl'), ('mse', 'ce')]

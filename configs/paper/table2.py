"""Table 2: other methods, WRN-28-4 -> WRN-16-2, by torchdistill's losses and by ours.

Beside the manuscript's numbers (S) Overhaul's own README gives 75.92 for its method.

    python tools/reproduce.py table2 --seeds 3
"""
title = 'Table 2: other methods, CIFAR-100, WRN-28-4 -> WRN-16-2'
folder = 'mmkd_logit::methods/wrn28-4_wrn16-2'
methods = dict(
    fitnets='FitNets', at='AT', ft='FT', ab='AB', dkd='DKD', dist='DIST',
    std='KL tau 4, standardised logits')
file = dict(std='kl-t4-std')
runs = dict(
    teacher=dict(config='mmkd_logit::wrn/wrn28-4.py'),
    ce=dict(row='CE', config='mmkd_logit::wrn/wrn16-2.py'))
runs.update({
    m: dict(row=methods[m], config=f'{folder}_{file.get(m, m)}.py', teacher='teacher')
    for m in methods})
runs.update(
    kl=dict(row='KL tau 20', config='mmkd_logit::kd/wrn28-4_wrn16-2_kl-t20.py', teacher='teacher'),
    mse=dict(row='MSE', config='mmkd_logit::kd/wrn28-4_wrn16-2_mse.py', teacher='teacher'))
cited = dict(
    skd='SKD', jacobian='Jacobian', overhaul='Overhaul, in the manuscript',
    overhaul_own='Overhaul, its own README')
paper = dict(
    ce=72.68, skd=73.53, fitnets=73.70, at=73.44, jacobian=73.29, ft=74.09, ab=73.98,
    overhaul=75.59, overhaul_own=75.92, kl=75.76, mse=75.54)
metrics = [dict(title='test top-1 (%)', key='test.accuracy/top1', paper=paper, mark='S')]
comparisons = [('mse', 'kl'), ('mse', 'ce')]

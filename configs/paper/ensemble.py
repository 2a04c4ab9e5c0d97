"""Ensembles of 1, 2 and 4 teachers, of several seeds or of two architectures.

The paper says that they help (S); its numbers are not known.

    python tools/reproduce.py ensemble --seeds 3
"""
title = 'Ensembles of teachers, CIFAR-100: WRN-28-4, mean of logits -> WRN-16-2'
pair = 'mmkd_logit::kd/wrn28-4_wrn16-2'
kd = dict(kl=f'{pair}_kl-t20.py', mse=f'{pair}_mse.py')
labels = dict(kl='KL tau 20', mse='MSE')
seeds = {f't{i}': dict(config='mmkd_logit::wrn/wrn28-4.py', seed_shift=1000 * i) for i in range(4)}
runs = dict(seeds, other=dict(config='mmkd_logit::wrn/wrn40-2.py'))
runs.update({
    f'{loss}_{n}': dict(
        row=labels[loss], column=f'{n} of several seeds', config=kd[loss],
        teacher=['t0', 't1', 't2', 't3'][:n])
    for loss in kd for n in (1, 2, 4)})
runs.update({
    f'{loss}_both': dict(
        row=labels[loss], column='WRN-28-4 and WRN-40-2', config=kd[loss],
        teacher=['t0', 'other'])
    for loss in kd})
comparisons = [('kl_4', 'kl_1'), ('mse_4', 'mse_1'), ('mse_4', 'kl_4')]

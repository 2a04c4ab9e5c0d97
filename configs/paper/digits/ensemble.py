"""Ensembles in small: 1, 2 and 4 teachers on digits.

    python tools/reproduce.py ensemble --scale digits --epochs 6
"""
title = 'Ensembles of teachers, digits: WRN-16-2, mean of logits -> thin WRN-10-1'
pair = 'mmkd_logit::kd/wrn16-2_wrn10-1-thin'
kd = dict(kl=f'{pair}_kl-t3_digits.py', mse=f'{pair}_mse_digits.py')
labels = dict(kl='KL tau 3', mse='MSE')
runs = {f't{i}': dict(config='mmkd_logit::wrn/wrn16-2_digits.py', seed_shift=1000 * i)
        for i in range(4)}
runs['other'] = dict(config='mmkd_logit::wrn/wrn10-1_digits.py')
runs.update({
    f'{loss}_{n}': dict(
        row=labels[loss], column=f'{n} of several seeds', config=kd[loss],
        teacher=['t0', 't1', 't2', 't3'][:n])
    for loss in kd for n in (1, 2, 4)})
runs.update({
    f'{loss}_both': dict(
        row=labels[loss], column='WRN-16-2 and WRN-10-1', config=kd[loss],
        teacher=['t0', 'other'])
    for loss in kd})
comparisons = [('kl_4', 'kl_1'), ('mse_4', 'mse_1'), ('mse_4', 'kl_4')]

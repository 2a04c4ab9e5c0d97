"""Table 1: WRN-28-4 teaches five students by CE, KL at five temperatures, and MSE.

    python tools/reproduce.py table1 --seeds 5
"""
title = 'Table 1: CIFAR-100, teacher WRN-28-4'
students = ['wrn16-2', 'wrn16-4', 'wrn28-2', 'wrn28-4', 'wrn40-6']
columns = ['CE', 'tau 1', 'tau 3', 'tau 5', 'tau 20', 'tau inf', 'MSE']
taus = ['1', '3', '5', '20', 'inf']
runs = dict(teacher=dict(config='mmkd_logit::wrn/wrn28-4.py'))
runs.update({
    f'{s}_ce': dict(row=s.upper(), column='CE', config=f'mmkd_logit::wrn/{s}.py')
    for s in students})
runs.update({
    f'{s}_kl-t{tau}': dict(
        row=s.upper(), column=f'tau {tau}', teacher='teacher',
        config=f'mmkd_logit::kd/wrn28-4_{s}_kl-t20.py',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '20'))
    for s in students for tau in taus})
runs.update({
    f'{s}_mse': dict(
        row=s.upper(), column='MSE', config=f'mmkd_logit::kd/wrn28-4_{s}_mse.py', teacher='teacher')
    for s in students})
names = ['ce', *[f'kl-t{tau}' for tau in taus], 'mse']
numbers = dict(
    wrn16_2=([72.68, 72.90, 74.24, 74.88, 75.15, 75.51, 75.54], 'SSSSRRS'),
    wrn16_4=([77.28, 76.93, 78.76, 78.65, 78.84, 78.61, 79.03], 'SRRRSRR'),
    wrn28_2=([75.12, 74.88, 76.47, 76.60, 77.28, 76.86, 77.28], 'SRRRSRR'),
    wrn28_4=([78.88, 78.01, 78.84, 79.36, 79.72, 79.61, 79.79], 'RRRRRRR'),
    wrn40_6=([79.11, 79.69, 79.94, 79.87, 79.82, 79.80, 80.25], 'RRRRRRR'))
paper = {
    f'{s}_{name}': (number, mark) for s in students
    for name, number, mark in zip(names, *numbers[s.replace('-', '_')])}
metrics = [dict(title='test top-1 (%)', key='test.accuracy/top1', paper=paper)]
note = 'MS20, the manuscript, has 75.76 (S) for WRN-16-2 at tau 20.'
comparisons = [(f'{s}_mse', f'{s}_kl-t20') for s in students]

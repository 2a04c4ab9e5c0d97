"""Table 1 in small: WRN-16-2 teaches five thin students on digits; each is named by its depth.

    python tools/reproduce.py table1 --scale digits --epochs 6
"""
title = 'Table 1 on digits: teacher WRN-16-2, students with a quarter of the channels'
students = dict(wrn10_1=(10, 1), wrn16_1=(16, 1), wrn10_2=(10, 2), wrn16_2=(16, 2), wrn22_2=(22, 2))
taus = ['1', '3', '5', '20', 'inf']
row = {s: f'thin WRN-{d}-{k}' for s, (d, k) in students.items()}
net = {s: [f'backbone.depth={d}', f'backbone.widen_factor={k}', f'head.in_channels={16 * k}']
       for s, (d, k) in students.items()}
plain = {s: [f'model.{text}' for text in net[s]] if s != 'wrn10_1' else [] for s in net}
inner = {s: [f'model.student.{text}' for text in net[s]] if s != 'wrn10_1' else [] for s in net}
folder = 'mmkd_logit::kd/wrn16-2_wrn10-1-thin'
runs = dict(teacher=dict(config='mmkd_logit::wrn/wrn16-2_digits.py'))
runs.update({f'{s}_ce': dict(
    row=row[s], column='CE', config='mmkd_logit::wrn/wrn10-1-thin_digits.py', overrides=plain[s])
    for s in students})
runs.update({f'{s}_kl-t{tau}': dict(
    row=row[s], column=f'tau {tau}', config=f'{folder}_kl-t3_digits.py', teacher='teacher',
    overrides=[*inner[s], *[f'model.loss_kd.tau={tau}'] * (tau != '3')])
    for s in students for tau in taus})
runs.update({f'{s}_mse': dict(
    row=row[s], column='MSE', config=f'{folder}_mse_digits.py', teacher='teacher',
    overrides=inner[s]) for s in students})
comparisons = [('wrn10_1_mse', 'wrn10_1_kl-t20')]

"""Amount of data in small: parts of the digits.

    python tools/reproduce.py data-amount --scale digits --epochs 6
"""
title = 'Amount of data, digits: WRN-16-2 -> thin WRN-10-1'
loss = dict(ce='CE', kd='KL tau 3')
teach = dict(ce={}, kd=dict(teacher='teacher'))
folder = 'mmkd_logit::data_amount/wrn'
config = dict(ce=f'{folder}10-1-thin', kd=f'{folder}16-2_wrn10-1-thin_kl-t3')
whole = dict(
    ce='mmkd_logit::wrn/wrn10-1-thin_digits.py',
    kd='mmkd_logit::kd/wrn16-2_wrn10-1-thin_kl-t3_digits.py')
field = 'train_dataloader.dataset'
parts = dict(samples='per_class', classes='classes')
fractions = ['0.2', '0.5']
halves = {'lower half': '(0., 0.5)', 'upper half': '(0.5, 1.)'}
runs = dict(teacher=dict(config='mmkd_logit::wrn/wrn16-2_digits.py'))
runs.update({f'{m}_{p}{f}': dict(
    row=f'share of {p}, {loss[m]}', column=f, config=f'{config[m]}_{p}_digits.py',
    overrides=[f'{field}.{parts[p]}={f}'], **teach[m])
    for p in parts for m in loss for f in fractions})
runs.update({f'{m}_all': dict(
    row=f'share of samples, {loss[m]}', column='all', config=whole[m], **teach[m]) for m in loss})
runs.update({f'{m}_{by}_{half[0]}': dict(
    row=f"by the teacher's {by}, {loss[m]}", column=half, config=f'{config[m]}_entropy_digits.py',
    scores='teacher', overrides=[f'{field}.by={by}', f'{field}.quantiles={halves[half]}'],
    **teach[m])
    for by in ('entropy', 'tld') for m in loss for half in halves})

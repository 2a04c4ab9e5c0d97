"""Amount of data: a part of the samples, of the classes, or those the teacher is (un)sure of.

    python tools/reproduce.py data-amount --seeds 3
"""
title = 'Amount of data, CIFAR-100: WRN-28-4 -> WRN-16-2'
loss = dict(ce='CE', kd='KL tau 20')
teach = dict(ce={}, kd=dict(teacher='teacher'))
folder = 'mmkd_logit::data_amount/'
config = dict(ce=f'{folder}wrn16-2', kd=f'{folder}wrn28-4_wrn16-2_kl-t20')
whole = dict(ce='mmkd_logit::wrn/wrn16-2.py', kd='mmkd_logit::kd/wrn28-4_wrn16-2_kl-t20.py')
field = 'train_dataloader.dataset'
parts = dict(samples='per_class', classes='classes')
fractions = ['0.1', '0.2', '0.3', '0.4', '0.5']
halves = {'lower half': '(0., 0.5)', 'upper half': '(0.5, 1.)'}
runs = dict(teacher=dict(config='mmkd_logit::wrn/wrn28-4.py'))
runs.update({f'{m}_{p}{f}': dict(
    row=f'share of {p}, {loss[m]}', column=f, config=f'{config[m]}_{p}.py',
    overrides=[f'{field}.{parts[p]}={f}'], **teach[m])
    for p in parts for m in loss for f in fractions})
runs.update({f'{m}_all': dict(
    row=f'share of samples, {loss[m]}', column='all', config=whole[m], **teach[m]) for m in loss})
runs.update({f'{m}_{by}_{half[0]}': dict(
    row=f"by the teacher's {by}, {loss[m]}", column=half, config=f'{config[m]}_entropy.py',
    scores='teacher', overrides=[f'{field}.by={by}', f'{field}.quantiles={halves[half]}'],
    **teach[m])
    for by in ('entropy', 'tld') for m in loss for half in halves})
numbers = dict(
    ce_samples=[42.51, 54.76, 60.15, 63.74, 66.65], kd_samples=[54.09, 62.70, 66.84, 69.38, 71.11],
    ce_classes=[9.13, 17.06, 24.99, 32.33, 39.55], kd_classes=[10.16, 19.32, 26.95, 34.35, 42.40])
paper = {f'{name}{f}': v for name, line in numbers.items() for f, v in zip(fractions, line)}
paper.update(ce_all=72.56, kd_all=75.76)
metrics = [dict(title='test top-1 (%)', key='test.accuracy/top1', paper=paper, mark='S')]

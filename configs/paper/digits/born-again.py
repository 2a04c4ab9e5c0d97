"""Self-distillation in steps in small: each thin WRN-10-1 teaches the next on digits.

    python tools/reproduce.py born-again --scale digits --epochs 6
"""
title = 'Born again, digits: thin WRN-10-1 taught by the thin WRN-10-1 before'
runs = dict(g0=dict(row='by CE', config='mmkd_logit::wrn/wrn10-1-thin_digits.py'))
runs.update({
    f'g{i}': dict(
        row=f'generation {i}', config='mmkd_logit::kd/wrn10-1-thin_wrn10-1-thin_kl-t3_digits.py',
        teacher=f'g{i - 1}')
    for i in range(1, 4)})
comparisons = [('g1', 'g0'), ('g3', 'g1')]

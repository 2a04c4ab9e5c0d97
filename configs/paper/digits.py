"""The main job on data that needs no download: does a teacher's logits help on digits?

Each seed trains its own teacher, the student alone and the student distilled; both students
have the same network, epochs and optimizer and start from the same weights.

    python tools/reproduce.py digits [--seeds 5]
"""
title = 'Digits: WRN-16-2 teaches WRN-10-1'
runs = dict(
    teacher=dict(label='teacher, WRN-16-2', config='configs/wrn/wrn16-2_digits.py'),
    alone=dict(label='student alone, WRN-10-1', config='configs/wrn/wrn10-1_digits.py'),
    distilled=dict(
        label='student distilled (MSE), WRN-10-1',
        config='configs/kd/wrn16-2_wrn10-1_mse_digits.py',
        teacher='teacher'))
comparisons = [('distilled', 'alone')]

"""The main job on data that needs no download: does a teacher's logits help on digits?

Each seed trains its own teacher, the student alone and the student distilled; the students have
the same network, epochs and optimizer and start from the same weights. Student, epochs and loss
were chosen on the val split; the table is of the test split.

    python tools/reproduce.py digits [--seeds 5]
"""
title = 'Digits: WRN-16-2 teaches a thin WRN-10-1'
runs = dict(
    teacher=dict(row='teacher, WRN-16-2', config='configs/wrn/wrn16-2_digits.py'),
    alone=dict(row='student alone', config='configs/wrn/wrn10-1-thin_digits.py'),
    distilled=dict(
        row='student distilled, KL tau 3',
        config='configs/kd/wrn16-2_wrn10-1-thin_kl-t3_digits.py',
        teacher='teacher'),
    mse=dict(
        row='student distilled, MSE',
        config='configs/kd/wrn16-2_wrn10-1-thin_mse_digits.py',
        teacher='teacher'))
comparisons = [('distilled', 'alone'), ('mse', 'alone'), ('mse', 'distilled')]

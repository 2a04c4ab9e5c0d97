"""Calibration in small: expected calibration error on the training images of digits.

    python tools/reproduce.py calibration --scale digits --epochs 6
"""
title = 'Calibration, digits: WRN-16-2 -> thin WRN-10-1'
pair = 'mmkd_logit::kd/wrn16-2_wrn10-1-thin'
runs = dict(
    teacher=dict(row='teacher', config='mmkd_logit::wrn/wrn16-2_digits.py'),
    ce=dict(row='CE', config='mmkd_logit::wrn/wrn10-1-thin_digits.py'))
runs.update({
    f'kl-t{tau}': dict(
        row=f'KL tau {tau}', config=f'{pair}_kl-t3_digits.py', teacher='teacher',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '3'))
    for tau in ['1', '3', '5', '20', 'inf']})
runs['mse'] = dict(row='MSE', config=f'{pair}_mse_digits.py', teacher='teacher')
metrics = [
    dict(title='train ECE (%)', key='train.calibration/ece'),
    dict(title='test ECE (%)', key='test.calibration/ece')]

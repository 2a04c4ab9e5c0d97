"""Calibration: expected calibration error of teacher and students on the training images.

    python tools/reproduce.py calibration --seeds 5
"""
title = 'Calibration, CIFAR-100: WRN-28-4 -> WRN-16-2'
kl = 'mmkd_logit::kd/wrn28-4_wrn16-2_kl-t20.py'
runs = dict(
    teacher=dict(row='teacher', config='mmkd_logit::wrn/wrn28-4.py'),
    ce=dict(row='CE', config='mmkd_logit::wrn/wrn16-2.py'))
runs.update({
    f'kl-t{tau}': dict(
        row=f'KL tau {tau}', config=kl, teacher='teacher',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '20'))
    for tau in ['1', '3', '5', '20', 'inf']})
runs['mse'] = dict(row='MSE', config='mmkd_logit::kd/wrn28-4_wrn16-2_mse.py', teacher='teacher')
paper = {'teacher': .86, 'ce': 3.40, 'kl-t1': 4.64, 'kl-t3': .61, 'kl-t5': .63, 'kl-t20': .78}
metrics = [
    dict(title='train ECE (%)', key='train.calibration/ece', paper=paper, mark='S'),
    dict(title='test ECE (%)', key='test.calibration/ece')]

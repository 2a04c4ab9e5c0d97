"""A noisy teacher on ImageNet: ResNet-152 stopped at 81.16 % train accuracy teaches ResNet-50.

The paper's order is S (small tau best, MSE worst), its numbers are not known.

    python tools/reproduce.py noisy-teacher-in1k --devices 0+1+2+3+4+5+6+7
"""
title = 'Noisy teacher, ImageNet: ResNet-152 stopped early -> ResNet-50'
row = 'stopped at 81.16 % train accuracy'
folder = 'mmkd_logit::noisy_teacher/resnet152'
scale = 'auto_scale_lr.enable=True'
runs = dict(
    teacher=dict(
        row=row, column='teacher', config=f'{folder}_stop81_in1k.py', overrides=[scale]))
runs.update({
    f'kl-t{tau}': dict(
        row=row, column=f'tau {tau}', teacher='teacher',
        config=f'{folder}-stop81_resnet50_kl-t1_in1k.py',
        overrides=[scale] + [f'model.loss_kd.tau={tau}'] * (tau != '1'))
    for tau in ['1', '3', '5', '20', 'inf']})
runs['mse'] = dict(
    row=row, column='MSE', teacher='teacher', overrides=[scale],
    config=f'{folder}-stop81_resnet50_mse_in1k.py')
comparisons = [('kl-t1', 'mse')]

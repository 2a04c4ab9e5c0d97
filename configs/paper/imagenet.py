"""ImageNet: ResNet-152 -> ResNet-50 and ResNet-34 -> ResNet-18; torchvision's weights teach.

    python tools/reproduce.py imagenet --devices 0+1+2+3+4+5+6+7
"""
title = 'ImageNet'
scale = ['auto_scale_lr.enable=True']
pairs = dict(resnet152='resnet50', resnet34='resnet18')
label = {t: f'{t} -> {s}'.replace('resnet', 'ResNet-') for t, s in pairs.items()}
taus = ['1', '3', '5', '20', 'inf']
runs = {
    f'{s}_ce': dict(
        row=label[t], column='CE', config=f'mmkd_logit::resnet/{s}_in1k.py', overrides=scale)
    for t, s in pairs.items()}
runs.update({
    f'{s}_kl-t{tau}': dict(
        row=label[t], column=f'tau {tau}', config=f'mmkd_logit::kd/{t}_{s}_kl-t20_in1k.py',
        overrides=scale + [f'model.loss_kd.tau={tau}'] * (tau != '20'))
    for t, s in pairs.items() for tau in taus})
runs.update({
    f'{s}_mse': dict(
        row=label[t], column='MSE', config=f'mmkd_logit::kd/{t}_{s}_mse_in1k.py', overrides=scale)
    for t, s in pairs.items()})
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1'),
    dict(title='test top-5 (%)', key='test.accuracy/top5')]
comparisons = [('resnet50_mse', 'resnet50_kl-t20'), ('resnet18_mse', 'resnet18_kl-t20')]
note = 'The paper reports ResNet-50 here; its numbers are not in the sources we could read.'

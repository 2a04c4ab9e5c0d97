"""The grid, in what a CPU can do: alpha x tau, accuracy on test and on clean training images.

WRN-28-4 -> WRN-16-2 on all of CIFAR-100 at half resolution, 30 epochs, bfloat16. About 3 hours on
two cores.

    python tools/reproduce.py grid --scale cpu
"""
title = 'Grid over alpha and tau: WRN-28-4 -> WRN-16-2 at half resolution, 30 epochs, CIFAR-100'
fast = True
alphas, taus = ['0.1', '0.5', '0.9', '1.0'], ['1', '3', '5', '20', 'inf']
runs = dict(teacher=dict(config='mmkd_logit::wrn/wrn28-4-half.py', seed=0))
runs.update({
    f'a{alpha}_t{tau}': dict(
        row=f'tau {tau}', column=f'alpha {alpha}', teacher='teacher',
        config='mmkd_logit::kd/wrn28-4-half_wrn16-2-half_kl-t20.py',
        overrides=[f'model.alpha={alpha}'] * (alpha != '1.0')
        + [f'model.loss_kd.tau={tau}'] * (tau != '20'))
    for tau in taus for alpha in alphas})
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1'),
    dict(title='train top-1 (%)', key='train.accuracy/top1')]
note = 'The authors measured train accuracy on augmented images; ours is of clean ones.'

"""Test accuracy against tau under label noise, small: 10,000 images of CIFAR-100, half resolution.

WRN-16-1 -> WRN-10-1, teacher and students on the same 40 % wrong labels; 12 of 200 epochs.

    python tools/reproduce.py noisy-label --scale cpu --epochs 12 --seeds 3
"""
title = 'Label noise, small: WRN-16-1 -> WRN-10-1 at half resolution, 10,000 images of CIFAR-100'
few = ['train_dataloader.dataset.dataset.dataset.indices=10000', 'train_cfg.val_interval=200']
noise = 'symmetric noise 40 %'
folder = 'configs/noisy_label/'
kl = folder + 'wrn16-1-half_wrn10-1-half_kl-t1_sym40.py'
taus = ['0.1', '0.5', '1', '5', '20', 'inf']
runs = dict(
    teacher=dict(
        row=noise, column='teacher', config=folder + 'wrn16-1-half_sym40.py', overrides=few),
    ce=dict(
        row=noise, column='CE', config=folder + 'wrn10-1-half_sym40.py', overrides=few),
    **{f'kl-t{tau}': dict(
        row=noise, column=f'KL tau {tau}', config=kl, teacher='teacher',
        overrides=[*few, f'model.loss_kd.tau={tau}'])
       for tau in taus},
    mse=dict(
        row=noise, column='MSE', teacher='teacher', overrides=few,
        config=folder + 'wrn16-1-half_wrn10-1-half_mse_sym40.py'))
metrics = [
    dict(title='test top-1 (%), clean labels', key='test.accuracy/top1'),
    dict(title='train top-1 (%) against the noisy labels', key='train.accuracy/top1')]
comparisons = [('kl-t1', 'ce'), ('kl-t1', 'mse'), ('kl-t0.5', 'mse'), ('kl-t1', 'kl-t20')]

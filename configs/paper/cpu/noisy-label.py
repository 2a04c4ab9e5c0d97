"""Test accuracy against tau under label noise, in what a CPU can do: WRN-16-2 -> WRN-10-1.

Teacher and students on the same 40 % wrong labels of 10 % of the images at half resolution. The
networks are as large for each image as the paper's (WRN-28-4 and WRN-16-2 on all images), so that
the teacher memorizes the wrong labels. One teacher, float32; about two hours on two cores.

    python tools/reproduce.py noisy-label --scale cpu
"""
title = 'Label noise: WRN-16-2 -> WRN-10-1 at half resolution, 10 % of CIFAR-100'
seeds = 3
row = 'symmetric noise 40 %'
folder = 'mmkd_logit::noisy_label/wrn'
kl, mse = (f'{folder}16-2-half_wrn10-1-half_{x}_samples_sym40.py' for x in ('kl-t1', 'mse'))
runs = dict(
    teacher=dict(
        row=row, column='teacher', config=f'{folder}16-2-half_samples_sym40.py', seed=0),
    ce=dict(row=row, column='CE', config=f'{folder}10-1-half_samples_sym40.py'))
for tau in ('0.1', '0.5', '1', '5', '20', 'inf'):
    runs[f'kl-t{tau}'] = dict(
        row=row, column=f'tau {tau}', config=kl, teacher='teacher',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '1'))
runs['mse'] = dict(row=row, column='MSE', config=mse, teacher='teacher')
del kl, mse, tau
metrics = [
    dict(title='test top-1 (%), clean labels', key='test.accuracy/top1'),
    dict(title='train top-1 (%) against the noisy labels', key='train.accuracy/top1'),
    dict(title='train top-1 (%) against the clean labels', key='train.accuracy/clean_top1'),
    dict(title='wrong labels memorized (%)', key='train.noisy/wrong_memorized')]
comparisons = [
    ('kl-t1', 'ce'), ('kl-t0.5', 'mse'), ('kl-t1', 'mse'), ('kl-t1', 'kl-t20'),
    ('kl-t0.5', 'kl-t0.1')]

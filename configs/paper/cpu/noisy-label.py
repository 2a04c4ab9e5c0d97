"""Test accuracy against tau under label noise, in what a CPU can do: WRN-28-4 -> WRN-16-2.

Teacher and students on the same 40 % wrong labels at half resolution, bfloat16: on 10 % of the
images for the recipe's 200 epochs, where the teacher learns the wrong labels by heart, as the
paper's does, and on all images for 30, where it does not. One teacher each; about 11 hours on two
cores.

    python tools/reproduce.py noisy-label --scale cpu
"""
title = 'Label noise: WRN-28-4 -> WRN-16-2 at half resolution, CIFAR-100'
seeds, fast = 2, True
folder = 'mmkd_logit::noisy_label/wrn'
rows = {'few_': 'symmetric noise 40 %, 10 % of the images', '': 'symmetric noise 40 %'}
part = {'few_': '_samples', '': ''}
taus = ['0.1', '0.5', '1', '5', '20', 'inf']
runs = {}
for n in rows:
    kl, mse = (f'{folder}28-4-half_wrn16-2-half_{x}{part[n]}_sym40.py' for x in ('kl-t1', 'mse'))
    teacher = f'{n}teacher'
    runs[teacher] = dict(
        row=rows[n], column='teacher', config=f'{folder}28-4-half{part[n]}_sym40.py', seed=0)
    runs[f'{n}ce'] = dict(row=rows[n], column='CE', config=f'{folder}16-2-half{part[n]}_sym40.py')
    for tau in taus:
        runs[f'{n}kl-t{tau}'] = dict(
            row=rows[n], column=f'tau {tau}', config=kl, teacher=teacher,
            overrides=[f'model.loss_kd.tau={tau}'] * (tau != '1'))
    runs[f'{n}mse'] = dict(row=rows[n], column='MSE', teacher=teacher, config=mse)
del n, kl, mse, teacher, tau
metrics = [
    dict(title='test top-1 (%), clean labels', key='test.accuracy/top1'),
    dict(title='train top-1 (%) against the noisy labels', key='train.accuracy/top1'),
    dict(title='train top-1 (%) against the clean labels', key='train.accuracy/clean_top1')]
comparisons = [
    (f'{n}{a}', f'{n}{b}') for n in rows
    for a, b in (('kl-t1', 'ce'), ('kl-t1', 'mse'), ('kl-t0.5', 'mse'), ('kl-t1', 'kl-t20'))]

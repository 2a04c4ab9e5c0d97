"""Table 1's first row in what a CPU can do: WRN-28-4 -> WRN-16-2, all of CIFAR-100.

Stride 2 in the first group (a quarter of the work) and 30 epochs of the recipe; bfloat16. One
teacher; about 9 hours on two cores with AVX-512.

    python tools/reproduce.py table1 --scale cpu
"""
title = 'Table 1, first row: WRN-28-4 -> WRN-16-2 at half resolution, 30 epochs, CIFAR-100'
seeds, fast, dump_logits = 3, True, ['train', 'test']
kl = 'mmkd_logit::kd/wrn28-4-half_wrn16-2-half_kl-t20.py'
taus = ['1', '3', '5', '20', 'inf']
student = 'WRN-16-2'
runs = dict(
    teacher=dict(
        row='teacher, WRN-28-4', column='CE', config='mmkd_logit::wrn/wrn28-4-half.py', seed=0),
    ce=dict(row=student, column='CE', config='mmkd_logit::wrn/wrn16-2-half.py'),
    **{f'kl-t{tau}': dict(
        row=student, column=f'tau {tau}', config=kl, teacher='teacher',
        overrides=[f'model.loss_kd.tau={tau}'] * (tau != '20'))
       for tau in taus},
    mse=dict(
        row=student, column='MSE', teacher='teacher',
        config='mmkd_logit::kd/wrn28-4-half_wrn16-2-half_mse.py'))
numbers = [72.68, 72.90, 74.24, 74.88, 75.15, 75.51, 75.54]
names = ['ce', *[f'kl-t{tau}' for tau in taus], 'mse']
paper = {name: pair for name, *pair in zip(names, numbers, 'SSSSRRS')}
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1', paper=paper),
    dict(title='train top-1 (%)', key='train.accuracy/top1')]
note = (
    "The paper's numbers are of 200 epochs at full resolution. Its manuscript of 2020 has 75.76 "
    '(S) at tau 20.')
comparisons = [('mse', 'ce'), ('mse', 'kl-t20'), ('kl-t20', 'kl-t1'), ('kl-t20', 'ce')]

"""Sequential teachers, in what a CPU can do: WRN-28-4 -> WRN-16-4 -> WRN-16-2.

All of CIFAR-100 at half resolution, 30 epochs, bfloat16; teachers of one seed. About 6 hours on
two cores.

    python tools/reproduce.py sequential --scale cpu
"""
title = 'Sequential distillation: WRN-28-4 -> WRN-16-4 -> WRN-16-2 at half resolution, 30 epochs'
seeds, fast = 2, True
kl, mse = (f'mmkd_logit::kd/wrn16-4-half_wrn16-2-half_{loss}.py' for loss in ('kl-t3', 'mse'))
pair = 'mmkd_logit::kd/wrn28-4-half_'
first, direct = f'{pair}wrn16-4-half', f'{pair}wrn16-2-half'
runs = dict(
    big=dict(config='mmkd_logit::wrn/wrn28-4-half.py', seed=0),
    medium=dict(config='mmkd_logit::wrn/wrn16-4-half.py', seed=0),
    medium_kl=dict(config=f'{first}_kl-t3.py', teacher='big', seed=0),
    medium_mse=dict(config=f'{first}_mse.py', teacher='big', seed=0),
    kl=dict(row='28-4 -KL3-> 16-2', config=f'{direct}_kl-t3.py', teacher='big'),
    ce_kl=dict(row='16-4 by CE -KL3-> 16-2', config=kl, teacher='medium'),
    kl_kl=dict(row='28-4 -KL3-> 16-4 -KL3-> 16-2', config=kl, teacher='medium_kl'),
    mse_kl=dict(row='28-4 -MSE-> 16-4 -KL3-> 16-2', config=kl, teacher='medium_mse'),
    mse=dict(row='28-4 -MSE-> 16-2', config=f'{direct}_mse.py', teacher='big'),
    ce_mse=dict(row='16-4 by CE -MSE-> 16-2', config=mse, teacher='medium'),
    kl_mse=dict(row='28-4 -KL3-> 16-4 -MSE-> 16-2', config=mse, teacher='medium_kl'),
    mse_mse=dict(row='28-4 -MSE-> 16-4 -MSE-> 16-2', config=mse, teacher='medium_mse'))
paper = dict(
    ce_kl=(74.84, 'S'), kl=(74.24, 'S'), kl_kl=(74.52, 'S'), mse=(75.54, 'S'), kl_mse=(75.70, 'R'),
    mse_kl=(74.83, 'R'), mse_mse=(75.4, 'R'), ce_mse=(75.42, 'R'))
metrics = [dict(title='test top-1 (%)', key='test.accuracy/top1', paper=paper)]
note = "The paper's numbers are of 200 epochs at full resolution."
comparisons = [('kl_mse', 'mse'), ('kl_kl', 'ce_kl'), ('kl_mse', 'kl_kl')]

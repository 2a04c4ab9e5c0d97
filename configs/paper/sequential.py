"""Sequential teachers: WRN-28-4 -> WRN-16-4 -> WRN-16-2, by chains of runs and within one run.

    python tools/reproduce.py sequential --seeds 5
"""
title = 'Sequential distillation, CIFAR-100: WRN-28-4 -> WRN-16-4 -> WRN-16-2'
kl, mse = 'mmkd_logit::kd/wrn16-4_wrn16-2_kl-t3.py', 'mmkd_logit::kd/wrn16-4_wrn16-2_mse.py'
inside = 'mmkd_logit::sequential/wrn28-4'
runs = dict(
    big=dict(config='mmkd_logit::wrn/wrn28-4.py'),
    medium=dict(config='mmkd_logit::wrn/wrn16-4.py'),
    medium_kl=dict(config='mmkd_logit::kd/wrn28-4_wrn16-4_kl-t3.py', teacher='big'),
    medium_mse=dict(config='mmkd_logit::kd/wrn28-4_wrn16-4_mse.py', teacher='big'),
    kl=dict(
        row='28-4 -KL3-> 16-2', config='mmkd_logit::kd/wrn28-4_wrn16-2_kl-t3.py', teacher='big'),
    ce_kl=dict(row='16-4 by CE -KL3-> 16-2', config=kl, teacher='medium'),
    kl_kl=dict(row='28-4 -KL3-> 16-4 -KL3-> 16-2', config=kl, teacher='medium_kl'),
    mse_kl=dict(row='28-4 -MSE-> 16-4 -KL3-> 16-2', config=kl, teacher='medium_mse'),
    mse=dict(row='28-4 -MSE-> 16-2', config='mmkd_logit::kd/wrn28-4_wrn16-2_mse.py', teacher='big'),
    ce_mse=dict(row='16-4 by CE -MSE-> 16-2', config=mse, teacher='medium'),
    kl_mse=dict(row='28-4 -KL3-> 16-4 -MSE-> 16-2', config=mse, teacher='medium_kl'),
    mse_mse=dict(row='28-4 -MSE-> 16-4 -MSE-> 16-2', config=mse, teacher='medium_mse'),
    switch=dict(
        row='28-4 -KL3 then MSE-> 16-2, in one run', teacher='big',
        config=f'{inside}_wrn16-2_kl-t3-then-mse.py'),
    switch_both=dict(
        row='28-4 -KL3-> then 16-4 -MSE-> 16-2, in one run', teacher='big',
        later_teacher='medium', config=f'{inside}-then-wrn16-4_wrn16-2_kl-t3-then-mse.py'))
paper = dict(
    ce_kl=(74.84, 'S'), kl=(74.24, 'S'), kl_kl=(74.52, 'S'), mse=(75.54, 'S'), kl_mse=(75.70, 'R'),
    mse_kl=(74.83, 'R'), mse_mse=(75.4, 'R'), ce_mse=(75.42, 'R'))
metrics = [dict(title='test top-1 (%)', key='test.accuracy/top1', paper=paper)]
comparisons = [('kl_mse', 'mse'), ('kl_kl', 'ce_kl'), ('kl_mse', 'kl_kl')]

"""Sequential teachers in small: WRN-16-2 -> WRN-10-1 -> thin WRN-10-1 on digits.

    python tools/reproduce.py sequential --scale digits --epochs 6
"""
title = 'Sequential distillation, digits: WRN-16-2 -> WRN-10-1 -> thin WRN-10-1'
last = 'mmkd_logit::kd/wrn10-1_wrn10-1-thin'
kl, mse = f'{last}_kl-t3_digits.py', f'{last}_mse_digits.py'
straight = 'mmkd_logit::kd/wrn16-2_wrn10-1-thin'
inside = 'mmkd_logit::sequential/wrn16-2'
runs = dict(
    big=dict(config='mmkd_logit::wrn/wrn16-2_digits.py'),
    medium=dict(config='mmkd_logit::wrn/wrn10-1_digits.py'),
    medium_kl=dict(config='mmkd_logit::kd/wrn16-2_wrn10-1_kl-t3_digits.py', teacher='big'),
    medium_mse=dict(config='mmkd_logit::kd/wrn16-2_wrn10-1_mse_digits.py', teacher='big'),
    kl=dict(row='16-2 -KL3-> thin', config=f'{straight}_kl-t3_digits.py', teacher='big'),
    ce_kl=dict(row='10-1 by CE -KL3-> thin', config=kl, teacher='medium'),
    kl_kl=dict(row='16-2 -KL3-> 10-1 -KL3-> thin', config=kl, teacher='medium_kl'),
    mse_kl=dict(row='16-2 -MSE-> 10-1 -KL3-> thin', config=kl, teacher='medium_mse'),
    mse=dict(row='16-2 -MSE-> thin', config=f'{straight}_mse_digits.py', teacher='big'),
    ce_mse=dict(row='10-1 by CE -MSE-> thin', config=mse, teacher='medium'),
    kl_mse=dict(row='16-2 -KL3-> 10-1 -MSE-> thin', config=mse, teacher='medium_kl'),
    mse_mse=dict(row='16-2 -MSE-> 10-1 -MSE-> thin', config=mse, teacher='medium_mse'),
    switch=dict(
        row='16-2 -KL3 then MSE-> thin, in one run', teacher='big',
        config=f'{inside}_wrn10-1-thin_kl-t3-then-mse_digits.py'),
    switch_both=dict(
        row='16-2 -KL3-> then 10-1 -MSE-> thin, in one run', teacher='big',
        later_teacher='medium',
        config=f'{inside}-then-wrn10-1_wrn10-1-thin_kl-t3-then-mse_digits.py'))
comparisons = [('kl_mse', 'mse'), ('kl_kl', 'ce_kl'), ('kl_mse', 'kl_kl')]

"""thin WRN-10-1 -> thin WRN-10-1 on 8x8 digits by the MSE between logits. Seconds on a CPU.

    python tools/train.py configs/kd/wrn10-1-thin_wrn10-1-thin_mse_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn10-1-thin_wrn10-1-thin_digits.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

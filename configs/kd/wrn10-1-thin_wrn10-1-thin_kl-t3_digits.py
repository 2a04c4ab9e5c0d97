"""thin WRN-10-1 -> thin WRN-10-1 on 8x8 digits by KL at tau = 3. Seconds on a CPU.

    python tools/train.py configs/kd/wrn10-1-thin_wrn10-1-thin_kl-t3_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn10-1-thin_wrn10-1-thin_digits.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=3))

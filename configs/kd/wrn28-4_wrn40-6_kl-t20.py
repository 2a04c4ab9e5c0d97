"""WRN-28-4 -> WRN-40-6 on CIFAR-100 by KL at tau = 20: Table 1, last row, column tau 20.

    python tools/train.py configs/kd/wrn28-4_wrn40-6_kl-t20.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn40-6.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=20))

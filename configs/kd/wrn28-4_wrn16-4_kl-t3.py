"""WRN-28-4 -> WRN-16-4 on CIFAR-100 by KL at tau = 3: Table 1, second row, column tau 3.

    python tools/train.py configs/kd/wrn28-4_wrn16-4_kl-t3.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-4.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=3))

"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by KL at tau = 5: Table 1, first row, column tau 5.

    python tools/train.py configs/kd/wrn28-4_wrn16-2_kl-t5.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=5))

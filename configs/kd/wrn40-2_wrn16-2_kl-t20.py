"""WRN-40-2 -> WRN-16-2 on CIFAR-100 by KL at tau = 20: the second pair of the grid.

    python tools/train.py configs/kd/wrn40-2_wrn16-2_kl-t20.py --train-teacher
"""
_base_ = '../_base_/kd/wrn40-2_wrn16-2.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=20))

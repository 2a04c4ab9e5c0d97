"""WRN-28-4 -> WRN-16-4 on CIFAR-100 at half resolution by KL at tau = 3, 30 epochs.

    python tools/train.py configs/kd/wrn28-4-half_wrn16-4-half_kl-t3.py --train-teacher --fast
"""
_base_ = '../_base_/kd/wrn28-4-half_wrn16-4-half.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=3))

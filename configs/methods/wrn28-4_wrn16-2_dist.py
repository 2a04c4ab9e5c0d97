"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by DIST.

Huang et al., NeurIPS 2022.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_dist.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    loss_kd=dict(type='mmkd_logit.DISTLoss', beta=2, gamma=2, tau=4), alpha=0.5)

"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by DKD.

Zhao et al., CVPR 2022.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_dkd.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    loss_kd=dict(type='mmkd_logit.DKDLoss', tau=4, alpha=1, beta=8), alpha=0.5)

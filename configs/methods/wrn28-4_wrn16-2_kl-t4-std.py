"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by KL at tau = 4 of standardised logits.

Sun et al., CVPR 2024.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_kl-t4-std.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    loss_kd=dict(
        type='mmkd_logit.LogitStandardization',
        loss=dict(type='mmkd_logit.ScaledKLDivLoss', tau=4)),
    alpha=0.9)

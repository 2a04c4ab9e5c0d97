"""WRN-16-2 -> thin WRN-10-1 on 8x8 digits by KL at tau = 4 of standardised logits.

Sun et al., CVPR 2024. Seconds on a CPU.

    python tools/train.py configs/methods/wrn16-2_wrn10-1-thin_kl-t4-std_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    loss_kd=dict(
        type='mmkd_logit.LogitStandardization',
        loss=dict(type='mmkd_logit.ScaledKLDivLoss', tau=4)),
    alpha=0.9)

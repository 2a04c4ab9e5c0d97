"""WRN-16-2 -> thin WRN-10-1 on 8x8 digits by DKD.

Zhao et al., CVPR 2022. Seconds on a CPU.

    python tools/train.py configs/methods/wrn16-2_wrn10-1-thin_dkd_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    loss_kd=dict(type='mmkd_logit.DKDLoss', tau=4, alpha=1, beta=8), alpha=0.5)

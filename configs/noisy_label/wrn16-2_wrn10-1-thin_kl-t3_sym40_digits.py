r"""WRN-16-2 -> thin WRN-10-1 by KL at tau = 3 on digits, both with 40 % label noise.

    python tools/train.py configs/noisy_label/wrn16-2_wrn10-1-thin_kl-t3_sym40_digits.py \
        --train-teacher
"""
_base_ = '../_base_/noisy_label/wrn16-2_wrn10-1-thin_sym40_digits.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=3))

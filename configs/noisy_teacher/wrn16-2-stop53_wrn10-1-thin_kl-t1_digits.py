"""Under-trained WRN-16-2 -> thin WRN-10-1 on 8x8 digits by KL at tau = 1.

    python tools/train.py configs/noisy_teacher/wrn16-2-stop53_wrn10-1-thin_kl-t1_digits.py
"""
_base_ = '../_base_/kd/wrn16-2-stop53_wrn10-1-thin_digits.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=1))

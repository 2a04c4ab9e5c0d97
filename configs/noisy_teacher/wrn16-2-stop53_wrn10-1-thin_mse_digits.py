"""Under-trained WRN-16-2 -> thin WRN-10-1 on 8x8 digits by the MSE between logits.

    python tools/train.py configs/noisy_teacher/wrn16-2-stop53_wrn10-1-thin_mse_digits.py
"""
_base_ = '../_base_/kd/wrn16-2-stop53_wrn10-1-thin_digits.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

"""WRN-16-2 -> WRN-10-1 on 8x8 digits by the MSE between logits. Seconds on a CPU.

    python tools/train.py configs/kd/wrn16-2_wrn10-1_mse_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1_digits.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

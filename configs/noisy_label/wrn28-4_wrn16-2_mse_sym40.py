"""WRN-28-4 -> WRN-16-2 by the MSE between logits on CIFAR-100, both with 40 % label noise.

    python tools/train.py configs/noisy_label/wrn28-4_wrn16-2_mse_sym40.py --train-teacher
"""
_base_ = '../_base_/noisy_label/wrn28-4_wrn16-2_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

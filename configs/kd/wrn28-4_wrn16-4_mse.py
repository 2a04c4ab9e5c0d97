"""WRN-28-4 -> WRN-16-4 on CIFAR-100 by the MSE between logits: Table 1, second row, column MSE.

    python tools/train.py configs/kd/wrn28-4_wrn16-4_mse.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-4.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

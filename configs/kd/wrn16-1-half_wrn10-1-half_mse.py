"""WRN-16-1 -> WRN-10-1 at half resolution on CIFAR-100 by the MSE between logits.

    python tools/train.py configs/kd/wrn16-1-half_wrn10-1-half_mse.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-1-half_wrn10-1-half.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

"""WRN-16-1 -> WRN-10-1 on CIFAR-100 by the MSE between logits: a pair that a CPU can train.

    python tools/train.py configs/kd/wrn16-1_wrn10-1_mse.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-1_wrn10-1.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

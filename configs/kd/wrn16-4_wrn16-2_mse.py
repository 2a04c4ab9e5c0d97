"""WRN-16-4 -> WRN-16-2 on CIFAR-100 by the MSE between logits.

The medium teacher alone, beside the chains.

    python tools/train.py configs/kd/wrn16-4_wrn16-2_mse.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-4_wrn16-2.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

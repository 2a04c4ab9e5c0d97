"""ResNet-34 -> ResNet-18 on CIFAR-100 by the MSE between logits.

A pair of post-activation networks.

    python tools/train.py configs/kd/resnet34_resnet18_mse.py --train-teacher
"""
_base_ = '../_base_/kd/resnet34_resnet18.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

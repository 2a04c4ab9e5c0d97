"""ResNet-34 -> ResNet-18 on ImageNet by the MSE between logits: the usual small ImageNet pair.

    tools/dist_train.sh configs/kd/resnet34_resnet18_mse_in1k.py 8
"""
_base_ = '../_base_/kd/resnet34_resnet18_in1k.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))

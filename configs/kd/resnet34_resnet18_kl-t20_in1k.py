"""ResNet-34 -> ResNet-18 on ImageNet by KL at tau = 20: the usual small ImageNet pair.

    tools/dist_train.sh configs/kd/resnet34_resnet18_kl-t20_in1k.py 8
"""
_base_ = '../_base_/kd/resnet34_resnet18_in1k.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=20))

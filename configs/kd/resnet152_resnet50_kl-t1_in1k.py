"""ResNet-152 -> ResNet-50 on ImageNet by KL at tau = 1: the paper's ImageNet pair.

    tools/dist_train.sh configs/kd/resnet152_resnet50_kl-t1_in1k.py 8
"""
_base_ = '../_base_/kd/resnet152_resnet50_in1k.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=1))

"""ResNet-152 -> ResNet-50 on ImageNet by KL at tau = inf: the paper's ImageNet pair.

    tools/dist_train.sh configs/kd/resnet152_resnet50_kl-tinf_in1k.py 8
"""
_base_ = '../_base_/kd/resnet152_resnet50_in1k.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau='inf'))

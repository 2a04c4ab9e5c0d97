"""WRN-28-4 -> MobileNetV2 on CIFAR-100 by KL at tau = 20: teacher and student of two architectures.

    python tools/train.py configs/kd/wrn28-4_mobilenetv2_kl-t20.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_mobilenetv2.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=20))

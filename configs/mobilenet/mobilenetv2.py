"""MobileNetV2 for 32x32 images on CIFAR-100 with cross-entropy: the student, alone.

    python tools/train.py configs/mobilenet/mobilenetv2.py
"""
_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(
    backbone=dict(type='mmkd_logit.MobileNetV2CIFAR'),
    head=dict(num_classes=100))

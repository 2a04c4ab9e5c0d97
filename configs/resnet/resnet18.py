"""ResNet-18 with a 3x3 stem on CIFAR-100 with cross-entropy: the student of the pair, alone.

    python tools/train.py configs/resnet/resnet18.py
"""
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(head=dict(num_classes=100))

"""ResNet-18 on ImageNet with cross-entropy, 8 GPUs x 32: the small student, alone.

    tools/dist_train.sh configs/resnet/resnet18_in1k.py 8
"""
_base_ = [
    'mmpretrain::_base_/models/resnet18.py', '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_100e.py', '../_base_/imagenet_runtime.py'
]

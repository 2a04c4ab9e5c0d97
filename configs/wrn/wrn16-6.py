"""WRN-16-6 on CIFAR-100 with cross-entropy: a wide, shallow teacher.

    python tools/train.py configs/wrn/wrn16-6.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=16, widen_factor=6), head=dict(in_channels=384))

"""WRN-16-2 on CIFAR-100 with cross-entropy: Table 1's first student, column CE.

    python tools/train.py configs/wrn/wrn16-2.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=16, widen_factor=2), head=dict(in_channels=128))

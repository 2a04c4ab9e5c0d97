"""WRN-40-6 on CIFAR-100 with cross-entropy: Table 1's largest student, column CE.

    python tools/train.py configs/wrn/wrn40-6.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=40, widen_factor=6), head=dict(in_channels=384))

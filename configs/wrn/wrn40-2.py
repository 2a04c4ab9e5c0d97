"""WRN-40-2 on CIFAR-100 with cross-entropy: a deep, thin teacher; the second pair of the grid.

    python tools/train.py configs/wrn/wrn40-2.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=40, widen_factor=2), head=dict(in_channels=128))

"""WRN-16-1 on CIFAR-100 with cross-entropy: a small teacher for a CPU.

    python tools/train.py configs/wrn/wrn16-1.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=16, widen_factor=1), head=dict(in_channels=64))

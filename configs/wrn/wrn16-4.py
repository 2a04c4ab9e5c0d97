"""WRN-16-4 on CIFAR-100 with cross-entropy: Table 1's second student, column CE.

Also the medium teacher of the chains.

    python tools/train.py configs/wrn/wrn16-4.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=16, widen_factor=4), head=dict(in_channels=256))

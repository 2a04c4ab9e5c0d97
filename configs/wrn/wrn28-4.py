"""WRN-28-4 on CIFAR-100 with cross-entropy: the teacher of Tables 1 and 2; a student in Table 1.

    python tools/train.py configs/wrn/wrn28-4.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py', '../_base_/default_runtime.py'
]
model = dict(backbone=dict(depth=28, widen_factor=4), head=dict(in_channels=256))

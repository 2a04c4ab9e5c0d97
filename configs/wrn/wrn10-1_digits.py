"""WRN-10-1 on 8x8 digits with cross-entropy: the medium teacher. Seconds on a CPU.

    python tools/train.py configs/wrn/wrn10-1_digits.py
"""
_base_ = [
    '../_base_/models/wrn.py', '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_30e.py', '../_base_/digits_runtime.py'
]
model = dict(
    backbone=dict(depth=10, widen_factor=1, in_channels=1, strides=(1, 1, 2)),
    head=dict(num_classes=10, in_channels=64))

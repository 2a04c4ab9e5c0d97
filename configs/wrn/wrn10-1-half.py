"""WRN-10-1 at half resolution on CIFAR-100 (stride 2 in every group): a quarter of the work.

    python tools/train.py configs/wrn/wrn10-1-half.py
"""
_base_ = './wrn10-1.py'
model = dict(backbone=dict(strides=(2, 2, 2)))

"""WRN-10-1 at half resolution on CIFAR-100 with 40 % symmetric label noise: minutes on a CPU.

    python tools/train.py configs/noisy_label/wrn10-1-half_sym40.py
"""
_base_ = './wrn10-1_sym40.py'
model = dict(backbone=dict(strides=(2, 2, 2)))

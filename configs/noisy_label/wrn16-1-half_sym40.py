"""WRN-16-1 at half resolution on CIFAR-100 with 40 % symmetric label noise: minutes on a CPU.

    python tools/train.py configs/noisy_label/wrn16-1-half_sym40.py
"""
_base_ = './wrn16-1_sym40.py'
model = dict(backbone=dict(strides=(2, 2, 2)))

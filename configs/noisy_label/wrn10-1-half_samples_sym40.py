"""WRN-10-1 at half resolution on 10 % of each class, 40 % symmetric label noise, 100 epochs.

As many parameters for each image as WRN-16-2 has on all of CIFAR-100.

    python tools/train.py configs/noisy_label/wrn10-1-half_samples_sym40.py
"""
_base_ = './wrn16-2-half_samples_sym40.py'
model = dict(backbone=dict(depth=10, widen_factor=1), head=dict(in_channels=64))

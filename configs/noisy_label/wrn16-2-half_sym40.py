"""WRN-16-2 at half resolution on CIFAR-100 with 40 % symmetric label noise, 30 epochs.

    python tools/train.py configs/noisy_label/wrn16-2-half_sym40.py --fast
"""
_base_ = './wrn16-2_sym40.py'
model = dict(backbone=dict(strides=(2, 2, 2)))
param_scheduler = dict(milestones=[15, 22])
train_cfg = dict(max_epochs=30, val_interval=30)

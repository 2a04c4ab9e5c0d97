"""WRN-28-4 at half resolution on CIFAR-100, 30 epochs: the teacher of the CPU experiments.

Stride 2 in the first group makes each image a quarter of the work.

    python tools/train.py configs/wrn/wrn28-4-half.py --fast
"""
_base_ = './wrn28-4.py'
model = dict(backbone=dict(strides=(2, 2, 2)))
param_scheduler = dict(milestones=[15, 22])
train_cfg = dict(max_epochs=30, val_interval=30)

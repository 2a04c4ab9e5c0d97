"""WRN-16-2 at half resolution on CIFAR-100, 30 epochs: the student of the CPU experiments.

Stride 2 in the first group makes each image a quarter of the work.

    python tools/train.py configs/wrn/wrn16-2-half.py --fast
"""
_base_ = './wrn16-2.py'
model = dict(backbone=dict(strides=(2, 2, 2)))
param_scheduler = dict(milestones=[15, 22])
train_cfg = dict(max_epochs=30, val_interval=30)

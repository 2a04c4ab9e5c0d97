"""WRN-10-1 at half resolution on 10 % of the samples of each class, 100 epochs.

As many parameters for each image as WRN-16-2 has on all of CIFAR-100.

    python tools/train.py configs/data_amount/wrn10-1-half_samples.py
"""
_base_ = './wrn16-2-half_samples.py'
model = dict(backbone=dict(depth=10, widen_factor=1), head=dict(in_channels=64))
param_scheduler = dict(milestones=[50, 75])
train_cfg = dict(max_epochs=100, val_interval=100)
custom_hooks = [
    dict(type='mmkd_logit.FinalCheckpointHook'),
    dict(type='mmkd_logit.ChannelsLastHook')
]

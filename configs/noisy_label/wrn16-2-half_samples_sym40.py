"""WRN-16-2 at half resolution on 10 % of each class, 40 % symmetric label noise, 100 epochs.

As many parameters for each image as WRN-28-4 has on all of CIFAR-100.

    python tools/train.py configs/noisy_label/wrn16-2-half_samples_sym40.py
"""
_base_ = './wrn16-2_sym40.py'
model = dict(backbone=dict(strides=(2, 2, 2)))
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='mmkd_logit.DataSubset',
            per_class=0.1,
            dataset={{_base_.train_dataloader.dataset.dataset}})))
param_scheduler = dict(milestones=[50, 75])
train_cfg = dict(max_epochs=100, val_interval=100)
custom_hooks = [
    dict(type='mmkd_logit.FinalCheckpointHook'),
    dict(type='mmkd_logit.ChannelsLastHook')
]

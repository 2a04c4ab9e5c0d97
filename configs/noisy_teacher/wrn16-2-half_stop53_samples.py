"""WRN-16-2 at half resolution on 10 % of each class, stopped at a train accuracy of 53.77 %.

It is that of its 5,000 training images without augmentation, looked at after every epoch.

    python tools/train.py configs/noisy_teacher/wrn16-2-half_stop53_samples.py
"""
_base_ = '../data_amount/wrn10-1-half_samples.py'
model = dict(backbone=dict(depth=16, widen_factor=2), head=dict(in_channels=128))
train_cfg = dict(val_interval=1)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        per_class=0.1,
        dataset=dict(
            type='mmkd_logit.InMemoryDataset',
            device='auto',
            pipeline={{_base_.val_dataloader.dataset.pipeline}},
            dataset=dict(
                type='mmpretrain.CIFAR100',
                data_root={{_base_.val_dataloader.dataset.dataset.data_root}},
                split='train'))))
custom_hooks = [
    dict(type='mmkd_logit.FinalCheckpointHook'),
    dict(type='mmkd_logit.ChannelsLastHook'),
    dict(
        type='mmengine.EarlyStoppingHook', monitor='accuracy/top1', rule='greater',
        stopping_threshold=53.77, patience=1_000_000, strict=True)
]

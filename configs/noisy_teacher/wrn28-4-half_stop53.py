"""WRN-28-4 at half resolution, stopped at a train accuracy of 53.77 %: a noisy teacher.

It is that of the 50,000 training images without augmentation, looked at after every epoch.

    python tools/train.py configs/noisy_teacher/wrn28-4-half_stop53.py --fast
"""
_base_ = '../wrn/wrn28-4-half.py'
train_cfg = dict(val_interval=1)
val_dataloader = dict(dataset=dict(dataset=dict(split='train')))
custom_hooks = [
    dict(type='mmkd_logit.FinalCheckpointHook'),
    dict(
        type='mmengine.EarlyStoppingHook', monitor='accuracy/top1', rule='greater',
        stopping_threshold=53.77, patience=1_000_000, strict=True)
]

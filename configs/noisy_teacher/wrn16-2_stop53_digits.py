"""WRN-16-2 on 8x8 digits, stopped at a train accuracy of 53.77 %. Seconds on a CPU.

    python tools/train.py configs/noisy_teacher/wrn16-2_stop53_digits.py
"""
_base_ = '../wrn/wrn16-2_digits.py'
train_cfg = dict(val_interval=1)
val_dataloader = dict(dataset=dict(dataset=dict(split='train')))
custom_hooks = [
    dict(type='mmkd_logit.FinalCheckpointHook'),
    dict(
        type='mmengine.EarlyStoppingHook', monitor='accuracy/top1', rule='greater',
        stopping_threshold=53.77, patience=1_000_000, strict=True)
]

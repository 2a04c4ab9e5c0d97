"""mmpretrain's runtime, seed 0, the last two checkpoints and final.pth; what looks at logits."""
_base_ = 'mmpretrain::_base_/default_runtime.py'
default_hooks = dict(
    checkpoint=dict(type='mmkd_logit.AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
    runtime_info=dict(type='mmkd_logit.LazyRuntimeInfoHook'),
    logit_outputs=dict(type='mmkd_logit.LogitOutputsHook'),
    train_accuracy=dict(type='mmkd_logit.TrainAccuracyHook'))
custom_hooks = [dict(type='mmkd_logit.FinalCheckpointHook')]
randomness = dict(seed=0, deterministic=False)

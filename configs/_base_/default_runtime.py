"""mmpretrain's runtime, seed 0, the last two epochs' checkpoints and final.pth."""
_base_ = 'mmpretrain::_base_/default_runtime.py'
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=2),
    runtime_info=dict(type='mmkd_logit.LazyRuntimeInfoHook'))
custom_hooks = [dict(type='mmkd_logit.FinalCheckpointHook')]
randomness = dict(seed=0, deterministic=False)

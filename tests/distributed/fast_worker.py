"""What each of the two processes of test_fast.py does; run by torchrun, writes RANK.pt."""

import os
import sys
import warnings

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner
from runs import Steps, digits_distiller, digits_student, run_config

from mmkd_logit.engine.config import make_fast
from mmkd_logit.engine.launch import prepare_launch
from mmkd_logit.hooks import channels_last as channels_last_hook

CHANNELS_LAST = dict(type="mmkd_logit.ChannelsLastHook")


def fast_run(folder, fast, batch_size):
    """Config of a run without batch statistics, in bfloat16 or in channels last alone."""
    student = digits_student(base_channels=8)
    student["backbone"]["norm_eval"] = True
    hooks = [CHANNELS_LAST, dict(type=Steps.__name__)]
    model = digits_distiller(student, alpha=0.5)
    cfg = run_config(model, folder, batch_size=batch_size, custom_hooks=hooks)
    cfg.default_hooks.runtime_info = dict(type="mmkd_logit.LazyRuntimeInfoHook")
    if fast:
        make_fast(cfg)
    return cfg


def train(cfg):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner = Runner.from_cfg(cfg)
        runner.train()
    model = getattr(runner.model, "module", runner.model)
    steps = next(hook for hook in runner.hooks if type(hook).__name__ == Steps.__name__).log
    return dict(
        gradients=[gradients for _, gradients in steps],
        weights={key: value.clone() for key, value in model.state_dict().items()},
        strides={name: p.stride() for name, p in model.named_parameters()},
        wrapper=type(runner.model).__name__,
        said=[str(each.message).splitlines()[0] for each in caught],
    )


def main(folder):
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
    rank = dist.get_rank()
    result = {}
    for fast in (False, True):
        cfg = fast_run(os.path.join(folder, str(fast)), fast, 8)
        prepare_launch(cfg, "pytorch")
        result[fast] = train(cfg)
    channels_last_hook._wrap_anew = lambda runner, model: None
    cfg = fast_run(os.path.join(folder, "late"), False, 8)
    prepare_launch(cfg, "pytorch")
    result["late"] = train(cfg)
    torch.save(result, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])

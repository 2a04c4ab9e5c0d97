"""Channels last and bfloat16 over two processes."""

import warnings

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner
from processes import run_ranks
from runs import Steps, digits_distiller, digits_student, run_config

from mmkd_logit.engine.config import make_fast
from mmkd_logit.engine.launch import prepare_launch
from mmkd_logit.hooks import channels_last as channels_last_hook
from mmkd_logit.registry import load_config

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


def train_ranks(folder):
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
    rank = dist.get_rank()
    result = {}
    for fast in (False, True):
        cfg = fast_run(folder / str(fast), fast, 8)
        prepare_launch(cfg, "pytorch")
        result[fast] = train(cfg)
    cfg = fast_run(folder / "views", False, 8)
    cfg.model_wrapper_cfg = load_config("mmkd_logit::resnet/resnet50_in1k.py").model_wrapper_cfg
    cfg.find_unused_parameters = True
    prepare_launch(cfg, "pytorch")
    result["views"] = dict(train(cfg), settings=dict(cfg.model_wrapper_cfg))
    channels_last_hook.unwrapped = lambda runner: runner.model  # so that it sees no wrapper
    cfg = fast_run(folder / "late", False, 8)
    prepare_launch(cfg, "pytorch")
    result["late"] = train(cfg)
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fast")
    run_ranks(2, train_ranks, folder)
    return folder


def distance(first, second):
    """Largest distance of two sets of tensors, relative to the largest value."""
    largest = max(value.abs().max() for value in first.values())
    return max((first[key] - second[key]).abs().max() / largest for key in first).item()


@pytest.mark.parametrize(("fast", "tolerance"), [(False, 1e-4), (True, 0.05)])
def test_both_agree_with_each_other_and_with_one_process(folder, fast, tolerance):
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False)[fast] for rank in (0, 1)]
    assert ranks[0]["wrapper"] == "MMDistributedDataParallel"
    for key, value in ranks[0]["weights"].items():
        assert torch.equal(value, ranks[1]["weights"][key])
    alone = train(fast_run(folder / f"alone{fast}", fast, 16))
    assert ranks[0]["strides"] == alone["strides"]
    for rank in ranks:
        assert len(rank["gradients"]) == len(alone["gradients"]) == 8
        for theirs, ours in zip(alone["gradients"], rank["gradients"], strict=True):
            assert distance(theirs, ours) < tolerance
    # The control: one step's gradients are not another's.
    assert distance(*alone["gradients"][:2]) > 4 * tolerance
    assert not any("strides" in text for rank in ranks for text in rank["said"])


def test_gradients_in_buckets_as_the_configs_of_imagenet_have_them(folder):
    """They are those of the default wrapper, bit for bit."""
    for rank in (0, 1):
        found = torch.load(folder / f"{rank}.pt", weights_only=False)
        settings, expected = found["views"]["settings"], found[False]
        assert settings["gradient_as_bucket_view"] is True
        assert settings["find_unused_parameters"] is True  # of the config's own field
        assert found["views"]["strides"] == expected["strides"]
        for name, value in expected["weights"].items():
            assert torch.equal(found["views"]["weights"][name], value), name


def test_without_wrapping_anew_ddp_mixes_up_gradients(folder):
    """Why the hook does it; should this fail, torch has been mended and the hook can do less."""
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False)["late"] for rank in (0, 1)]
    alone = torch.load(folder / "0.pt", weights_only=False)[False]["gradients"]
    for rank in ranks:
        name = "backbone.groups.1.0.conv1.weight"
        mixed, right = rank["gradients"][0][name], alone[0][name]
        assert not torch.allclose(mixed, right, rtol=0.1)
        same = [each.flatten().sort().values for each in (mixed, right)]
        torch.testing.assert_close(*same, rtol=1e-4, atol=1e-7)
        assert any("strides" in text for text in rank["said"])

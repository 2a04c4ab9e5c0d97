"""Another layout, the same values, plain checkpoints."""

import pytest
import torch
from mmengine.runner import Runner
from runs import StopAfter, assert_same, digits_distiller, digits_student, run_config, weights

HOOK = dict(type="mmkd_logit.ChannelsLastHook")
EMA = dict(type="EMAHook", momentum=0.1)
MODELS = dict(plain=digits_student(base_channels=8), distiller=digits_distiller(alpha=0.5))


def run(folder, model="plain", hooks=(HOOK,), stop=None, resume=False, **kwargs):
    hooks = [*hooks, *([] if stop is None else [dict(type=StopAfter.__name__, epoch=stop)])]
    cfg = run_config(MODELS[model], folder, custom_hooks=hooks, **kwargs)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.resume = resume
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def is_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def spatial(model):
    """Weights of which one layout is not also the other."""
    found = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert len(found) >= 6
    return found


def test_training_starts_from_the_same_weights_and_stays_close(tmp_path):
    trained = [weights(run(tmp_path / f"{len(h)}", "distiller", h)) for h in ((), (HOOK,))]
    for key, value in trained[0].items():
        torch.testing.assert_close(trained[1][key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_all_changes_its_layout_but_checkpoints_which_load_into_a_plain_model(tmp_path, model):
    hooks = (EMA, HOOK, dict(type="mmkd_logit.FinalCheckpointHook"))
    runner = run(tmp_path, model, hooks=hooks)
    (average,) = (h.ema_model.module for h in runner.hooks if hasattr(h, "ema_model"))
    states = runner.optim_wrapper.optimizer.state

    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list)):
            for item in value.values() if isinstance(value, dict) else value:
                yield from tensors(item)

    for name in ("epoch_2.pth", "final.pth"):
        saved = torch.load(tmp_path / name, weights_only=False)
        names = [key for key in ("state_dict", "ema_state_dict", "optimizer") if key in saved]
        assert len(names) == (2 if name == "final.pth" else 3)
        found = list(tensors({key: saved[key] for key in names}))
        assert sum(t.ndim == 4 for t in found) >= 12
        assert all(tensor.is_contiguous() for tensor in found)
    for parameter in [*spatial(runner.model), *spatial(average)]:  # saving changes nothing
        assert is_last(parameter)
        assert not parameter.is_contiguous()
    assert all(is_last(states[p]["momentum_buffer"]) for p in spatial(runner.model))
    fresh = Runner.from_cfg(run_config(MODELS[model], tmp_path / "fresh")).model
    fresh.load_state_dict(saved["state_dict"])
    assert_same(weights(fresh), dict(saved["state_dict"]))
    assert not any(is_last(parameter) for parameter in spatial(fresh))


def test_resumes_bit_for_bit_also_momenta_and_average(tmp_path):
    whole = run(tmp_path / "whole", hooks=(EMA, HOOK), epochs=3)
    run(tmp_path / "halves", hooks=(EMA, HOOK), epochs=3, stop=1)
    halves = run(tmp_path / "halves", hooks=(EMA, HOOK), epochs=3, resume=True)
    assert_same(weights(whole), weights(halves))
    optimizers = [r.optim_wrapper.optimizer for r in (whole, halves)]
    for a, b in zip(*(spatial(r.model) for r in (whole, halves)), strict=True):
        pairs = zip(optimizers, (a, b), strict=True)
        momenta = [optimizer.state[p]["momentum_buffer"] for optimizer, p in pairs]
        assert torch.equal(*momenta)
        assert momenta[0].stride() == momenta[1].stride() == b.stride()
    averages = [
        next(h.ema_model for h in r.hooks if hasattr(h, "ema_model")) for r in (whole, halves)
    ]
    assert_same(*map(weights, averages))


def test_either_kind_of_run_resumes_the_other(tmp_path):
    for name, first, second in (("a", (HOOK,), ()), ("b", (), (HOOK,))):
        run(tmp_path / name, hooks=first, epochs=3, stop=1)
        resumed = run(tmp_path / name, hooks=second, epochs=3, resume=True)
        assert {is_last(p) for p in spatial(resumed.model)} == {bool(second)}

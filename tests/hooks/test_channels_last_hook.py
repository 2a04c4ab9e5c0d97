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


@pytest.mark.parametrize("model", MODELS)
def test_everything_that_trains_changes_its_layout(tmp_path, model):
    runner = run(tmp_path, model, hooks=(EMA, HOOK))
    (average,) = (h.ema_model.module for h in runner.hooks if hasattr(h, "ema_model"))
    states = runner.optim_wrapper.optimizer.state
    for network in (runner.model, average):
        for parameter in spatial(network):
            assert is_last(parameter)
            assert not parameter.is_contiguous()
    assert all(is_last(states[p]["momentum_buffer"]) for p in spatial(runner.model))
    control = run(tmp_path / "control", model, hooks=())
    assert not any(is_last(parameter) for parameter in spatial(control.model))


def test_training_starts_from_the_same_weights_and_stays_close(tmp_path):
    runs = {}
    for name, hooks in (("plain", ()), ("last", (HOOK,))):
        cfg = run_config(MODELS["distiller"], tmp_path / name, custom_hooks=list(hooks))
        cfg.optim_wrapper.optimizer.lr = 0.0
        cfg.optim_wrapper.optimizer.weight_decay = 0.0
        runner = Runner.from_cfg(cfg)
        runner.train()
        runs[name] = {key: p.clone() for key, p in runner.model.named_parameters()}
    assert_same(runs["plain"], runs["last"])
    trained = [weights(run(tmp_path / f"{len(h)}", "distiller", h)) for h in ((), (HOOK,))]
    for key, value in trained[0].items():
        torch.testing.assert_close(trained[1][key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_checkpoints_are_contiguous_and_load_into_a_plain_model(tmp_path, model):
    hooks = (EMA, HOOK, dict(type="mmkd_logit.FinalCheckpointHook"))
    runner = run(tmp_path, model, hooks=hooks)

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
    assert all(is_last(parameter) for parameter in spatial(runner.model))  # saving changes nothing
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
        momenta = (
            optimizers[0].state[a]["momentum_buffer"],
            optimizers[1].state[b]["momentum_buffer"],
        )
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

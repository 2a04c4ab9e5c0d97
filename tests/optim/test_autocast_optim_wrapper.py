"""bfloat16 on a CPU: where it applies, where it must not, and what is saved."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from networks import batch, build, distiller, wrn
from runs import StopAfter, assert_same, digits_distiller, run_config, weights
from torch import nn

from mmkd_logit.optim import AutocastOptimWrapper, autocast

SGD = dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-3)
AUTOCAST = dict(type="mmkd_logit.AutocastOptimWrapper", optimizer=SGD)


def wrapper_of(model, **kwargs):
    return AutocastOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)


def test_forward_is_bfloat16_and_all_that_stays_is_float32():
    model, seen = build(wrn()), {}
    for name in ("backbone", "head"):
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output})
        )
    inputs, samples = batch()
    wrapper = wrapper_of(model)
    with wrapper.optim_context(model):
        loss = model(inputs, samples, mode="loss")["loss"]
    wrapper.backward(loss)
    assert {seen["backbone"][-1].dtype, seen["head"].dtype} == {torch.bfloat16}
    assert loss.dtype == torch.float32
    kept = [*model.parameters(), *(p.grad for p in model.parameters())]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")
    assert model(inputs).dtype == torch.float32


@pytest.mark.parametrize(("capability", "said"), [("AVX2", True), ("AVX512", False)])
def test_says_where_bfloat16_is_slow(capability, said, monkeypatch):
    texts = []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(autocast, "print_log", lambda *text: texts.append(text))
    wrapper_of(nn.Linear(2, 2))
    assert [f"({capability}) has no instructions for bfloat16" in text[0] for text in texts] == (
        [True] * said
    )


LOSSES = [
    dict(type="mmkd_logit.LogitMSELoss"),
    dict(type="mmkd_logit.ScaledKLDivLoss", tau=4),
    dict(type="mmkd_logit.ScaledKLDivLoss", tau=1e-3, scale="max(tau, tau^2)"),
    dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf"),
    dict(type="mmkd_logit.DKDLoss"),
    dict(type="mmkd_logit.DISTLoss"),
    dict(
        type="mmkd_logit.LogitStandardization", loss=dict(type="mmkd_logit.ScaledKLDivLoss", tau=2)
    ),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["type"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_losses_are_as_exact_under_autocast(loss, dtype):
    from mmkd_logit.registry import MODELS

    loss_kd = MODELS.build(dict(loss))
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(16, 10, generator=generator).mul(5).to(dtype) for _ in range(2))
    labels = [torch.arange(16) % 10] if getattr(loss_kd, "needs_labels", False) else []
    results = []
    for enabled in (False, True):
        student = u.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = loss_kd(student, v, *labels)
        value.backward()
        results.append((value, student.grad))
    assert results[0][0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float16", "float16's gradients vanish.*AmpOptimWrapper.*--amp"),
        (torch.float16, "AmpOptimWrapper"),
        ("float32", "take optim_wrapper=dict\\(type='OptimWrapper'\\)"),
        ("half", "leave dtype out"),
        (None, "leave dtype out"),
        (1, "got dtype=1"),
    ],
)
def test_other_types(dtype, words):
    with pytest.raises(ValueError, match=words):
        wrapper_of(nn.Linear(2, 2), dtype=dtype)


def test_without_autocast_it_is_mmengines():
    """Where every product is exact in bfloat16 the whole step is the plain one."""
    results = []
    for kind in (OptimWrapper, AutocastOptimWrapper):
        layer = nn.Linear(2, 2)
        layer.weight.data = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
        layer.bias.data.zero_()
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.25, momentum=0.5)
        wrapper = kind(optimizer, accumulative_counts=2, clip_grad=dict(max_norm=1.0))
        wrapper.initialize_count_status(layer, 0, 5)
        steps = []
        for _ in range(5):
            with wrapper.optim_context(layer):
                loss = layer(torch.tensor([[1.0, 2.0]])).float().sum()
            wrapper.update_params(loss)
            steps.append(layer.weight.detach().clone())
        results.append((steps, wrapper.state_dict()))
    for first, second in zip(*(steps for steps, _ in results), strict=True):
        assert torch.equal(first, second)
    steps = results[0][0]
    assert torch.equal(steps[1], steps[2])  # accumulates
    assert not torch.equal(steps[1], steps[0])
    assert results[0][1].keys() == results[1][1].keys()


def test_accumulation_holds_back_the_sum_over_processes():
    class Model(nn.Linear):
        def no_sync(self):
            calls.append(1)
            return torch.no_grad()

    calls, model = [], Model(2, 2)
    wrapper = wrapper_of(model, accumulative_counts=2)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert calls == [1]


def run(folder, wrapper=AUTOCAST, stop=None, resume=False):
    hooks = [] if stop is None else [dict(type=StopAfter.__name__, epoch=stop)]
    cfg = run_config(digits_distiller(alpha=0.5), folder, epochs=3, custom_hooks=hooks)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.optim_wrapper, cfg.resume = dict(wrapper), resume
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_resumes_bit_for_bit_and_from_a_float32_run(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "halves", stop=1)
    assert_same(weights(whole), weights(run(tmp_path / "halves", resume=True)))
    plain = dict(optimizer=SGD)
    run(tmp_path / "plain", plain, stop=1)
    mixed = run(tmp_path / "plain", resume=True)
    assert isinstance(mixed.optim_wrapper, AutocastOptimWrapper)
    exact = run(tmp_path / "exact", plain)
    names = ("whole", "mixed", "exact")
    heads = {
        name: weights(r)["head.fc.weight"]
        for name, r in zip(names, (whole, mixed, exact), strict=True)
    }
    assert not torch.equal(heads["exact"], heads["whole"])
    assert not torch.equal(heads["exact"], heads["mixed"])
    torch.testing.assert_close(heads["exact"], heads["whole"], rtol=0.1, atol=0.02)


def test_distillers_step():
    model = build(distiller(alpha=0.5))
    inputs, samples = batch()
    wrapper = wrapper_of(model)
    with wrapper.optim_context(model):
        losses = model(inputs, samples, mode="loss")
    assert {value.dtype for key, value in losses.items() if key.startswith("loss")} == {
        torch.float32
    }
    loss, _ = model.parse_losses(losses)
    before = weights(model)
    wrapper.update_params(loss)
    assert not torch.equal(before["head.fc.weight"], model.state_dict()["head.fc.weight"])

"""Hooks that only watch leave the weights as they are, bit for bit."""

from mmengine.runner import Runner
from runs import assert_same, digits_distiller, run_config, weights

WATCHING = [
    *("ClassifierSumHook", "FiniteLossHook", "LabelNoiseHook", "LogitOutputsHook"),
    *("ProgressBarHook", "TrainAccuracyHook"),
]


def test_weights_are_the_same_bits_without_them(tmp_path):
    found = []
    for name in ("with", "without"):
        cfg = run_config(digits_distiller(alpha=0.5), tmp_path / name)
        if name == "with":
            cfg.custom_hooks = [dict(type=f"mmkd_logit.{hook}") for hook in WATCHING]
            cfg.default_hooks.runtime_info = dict(type="mmkd_logit.LazyRuntimeInfoHook")
        runner = Runner.from_cfg(cfg)
        runner.train()
        assert not runner.model.head._forward_hooks
        found.append(weights(runner))
    assert_same(*found)

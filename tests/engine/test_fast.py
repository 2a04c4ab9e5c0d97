"""Fewer digits: what --fast sets, what rows say of it, and that it is never taken for exact."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import KD, STUDENT, Tiny, error_of, folder_of, train
from mmengine.config import Config

from mmkd_logit.engine.config import describe_numerics, make_fast, read_config, teachers_of
from mmkd_logit.engine.fingerprint import fingerprint_of
from mmkd_logit.engine.results import find_row, read_lines
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.engine.train import main as train_main

FAST = "bfloat16, channels_last, fused"


def config_of(*words):
    return build_config(build_parser().parse_args([*map(str, words)]))


def test_what_it_sets(project):
    exact, fast = config_of(KD), config_of(KD, "--fast")
    assert fast.optim_wrapper.type == "mmkd_logit.AutocastOptimWrapper"
    assert fast.optim_wrapper.dtype == "bfloat16"
    assert fast.optim_wrapper.optimizer == dict(exact.optim_wrapper.optimizer, fused=True)
    assert fast.optim_wrapper.paramwise_cfg == exact.optim_wrapper.paramwise_cfg
    (before,), (teacher,) = (teachers_of(cfg).values() for cfg in (exact, fast))
    assert teacher == replace(before, channels_last=True, autocast="bfloat16")
    assert fast.custom_hooks == [*exact.custom_hooks, dict(type="mmkd_logit.ChannelsLastHook")]
    changed = {"optim_wrapper", "custom_hooks", "model", "work_dir"}
    assert {key for key in fast if fast[key] != exact[key]} == changed
    assert fingerprint_of(fast) != fingerprint_of(exact)
    assert fast.work_dir == exact.work_dir.replace("/seed0", "_fast/seed0")
    again = fast.copy()
    make_fast(again)
    assert again.to_dict() == fast.to_dict()


def test_channels_last_keeps_the_precision(project):
    exact, fast = config_of(KD), config_of(KD, "--channels-last")
    changed = {"custom_hooks", "work_dir"}
    assert {key for key in fast if fast[key] != exact[key]} == changed
    assert fast.custom_hooks == [*exact.custom_hooks, dict(type="mmkd_logit.ChannelsLastHook")]
    assert describe_numerics(fast) == "float32, channels_last; teacher float32"
    assert describe_numerics(config_of(STUDENT, "--channels-last")) == "float32, channels_last"
    assert fingerprint_of(fast) != fingerprint_of(exact)
    assert fast.work_dir == exact.work_dir.replace("/seed0", "_channels-last/seed0")
    both = config_of(KD, "--fast", "--channels-last")
    assert both.to_dict() == config_of(KD, "--fast").to_dict()


def test_plain_models_and_what_a_config_says_itself(project):
    fast = config_of(STUDENT, "--fast")
    assert describe_numerics(fast) == FAST
    options = "optim_wrapper.optimizer.foreach=True", "model.teacher.autocast=float32"
    fast = config_of(KD, "--fast", "--cfg-options", *options)
    assert "fused" not in fast.optim_wrapper.optimizer
    assert fast.model.teacher.autocast == "float32"


def test_teachers_in_every_form():
    cfg = Config(
        dict(
            model=dict(type="mmkd_logit.LogitDistiller", teacher=["resnet34_8xb32_in1k", None]),
            optim_wrapper=dict(optimizer=dict(type="LARS")),
            custom_hooks=[
                dict(
                    type="mmkd_logit.SequentialTeacherHook",
                    stages=[dict(begin=1, teacher=dict(type="ImageClassifier")), dict(begin=2)],
                )
            ],
        )
    )
    cfg.model.teacher[1] = dict(config="a.py", checkpoint="a.pth", channels_last=False)
    make_fast(cfg)
    options = dict(channels_last=True, autocast="bfloat16")
    assert cfg.model.teacher == [
        dict(config="resnet34_8xb32_in1k", **options),
        dict(config="a.py", checkpoint="a.pth", channels_last=False, autocast="bfloat16"),
    ]
    stages = cfg.custom_hooks[0].stages
    assert stages[0].teacher == dict(config=dict(type="ImageClassifier"), **options)
    assert stages[1] == dict(begin=2)
    assert cfg.optim_wrapper.optimizer == dict(type="LARS")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "float32"),
        ({"optim_wrapper.type": "AmpOptimWrapper"}, "float16"),
        ({"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.dtype": "bfloat16"}, "bfloat16"),
        ({"optim_wrapper.type": "mmkd_logit.AutocastOptimWrapper"}, "bfloat16"),
        ({"optim_wrapper.optimizer.fused": True}, "float32, fused"),
        ({"compile": True}, "float32, compiled; teacher float32"),
        ({"model.teacher.autocast": "bfloat16"}, "float32; teacher bfloat16"),
        (
            {"model.teacher.channels_last": True, "model.teacher.compile": dict(backend="eager")},
            "float32; teacher float32, channels_last, compiled",
        ),
        ({"model.teacher.cache": dict(storage="memory")}, "float32"),
        (
            {"model.teacher.cache": dict(dtype="float16")},
            "float32; teacher float32, logits stored in float16",
        ),
    ],
)
def test_numerics_in_words(project, settings, expected):
    cfg = read_config(KD)
    cfg.merge_from_dict(settings)
    assert describe_numerics(cfg) == expected


def test_refusals(workplace, capsys):
    words = "--fast and --amp both choose the precision"
    assert words in error_of(capsys, train_main, STUDENT, "--fast", "--amp")
    cfg = Config(dict(model={}, optim_wrapper=dict(type="AmpOptimWrapper")))
    with pytest.raises(ValueError, match=r"the config has AmpOptimWrapper; leave one of them out"):
        make_fast(cfg)


def test_a_fast_run_is_not_an_exact_one(workplace, capsys):
    tiny = Tiny()
    train(tiny.kd, "--train-teacher", "--results", "rows.jsonl", "--fast")
    train(tiny.kd, "--results", "rows.jsonl")
    teacher, *rows = read_lines(Path("rows.jsonl"))
    assert [row["numerics"] for row in (teacher, *rows)] == [FAST, FAST, "float32"]
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]
    assert rows[0]["teachers"] == rows[1]["teachers"]  # trained once
    assert rows[0]["weights"] != rows[1]["weights"]
    fast, exact = config_of(tiny.kd, "--fast"), config_of(tiny.kd)
    for cfg, own, other in ((fast, *rows), (exact, *reversed(rows))):
        assert find_row(cfg, rows) == own
        assert find_row(cfg, [other]) is None
        disguised = dict(other, weights=own["weights"])
        assert find_row(cfg, [disguised]) is None
    # The weights are plain ones, and the teacher was trained like the student.
    folder = folder_of(tiny.kd)
    folders = folder.parent.with_name(f"{folder.parent.name}_fast") / "seed0", folder
    saved = [torch.load(each / "final.pth", weights_only=False) for each in folders]
    first, second = (each["state_dict"] for each in saved)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.dtype == second[key].dtype
        assert value.is_contiguous()
    origin = json.loads((folder_of(tiny.teacher) / "run.json").read_text())
    assert origin["fingerprint"] == fingerprint_of(config_of(tiny.teacher, "--fast"))
    message = error_of(capsys, train_main, tiny.kd, "--train-teacher")
    assert 'optim_wrapper.dtype: "bfloat16" -> not set' in message

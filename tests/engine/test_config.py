import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import KD, STUDENT
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_logit.engine.config import (
    add_common_arguments,
    apply_common_arguments,
    default_work_dir,
    read_config,
    use_amp,
)
from mmkd_logit.engine.fingerprint import (
    computed_content,
    fingerprint,
    fingerprint_of,
    reduce_content,
)
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.registry import config_path, load_config


def options(*words):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return parser.parse_args(["--cfg-options", *words]).cfg_options


def configure(config, *words):
    return build_config(build_parser().parse_args([config, *words]))


def hash_of(config, *words):
    return fingerprint_of(configure(config, *words))


def test_values_of_overrides():
    assert options(
        "a=1", "b=2.5", "c=true", "d=None", "e=text", "f=[1,2]", "g=(1,[a,b])", "h=1,2", "i=a=b"
    ) == dict(a=1, b=2.5, c=True, d=None, e="text", f=[1, 2], g=(1, ["a", "b"]), h=[1, 2], i="a=b")
    assert options("p=mein Ordner/模型.pth", "q='a b'", "r=") == dict(
        p="mein Ordner/模型.pth", q="a b", r=""
    )
    parsed = build_parser().parse_args(["c", "--cfg-options", "a=1", "--cfg-options", "b=2"])
    assert parsed.cfg_options == dict(a=1, b=2)


def test_another_type_replaces_the_settings_of_the_old_one(project):
    mse = "model.loss_kd={'type': 'mmkd_logit.LogitMSELoss', 'reduction': 'sum'}"
    assert configure(KD, "--cfg-options", mse).model.loss_kd == dict(
        type="mmkd_logit.LogitMSELoss", reduction="sum"
    )
    again = "model.loss_kd={'type': 'mmkd_logit.ScaledKLDivLoss', 'scale': 'tau'}"
    kept = configure(KD).model.loss_kd
    assert configure(KD, "--cfg-options", again).model.loss_kd == {**kept, "scale": "tau"}
    inside = "model={'loss_kd': {'type': 'mmkd_logit.DKDLoss'}, 'alpha': 0.5}"
    model = configure(KD, "--cfg-options", inside).model
    assert (model.loss_kd, model.alpha) == (dict(type="mmkd_logit.DKDLoss"), 0.5)
    assert model.student == configure(KD).model.student
    steps = "train_dataloader.dataset.dataset.pipeline.0={'type': 'RandomFlip', 'prob': 0.5}"
    first = configure(KD, "--cfg-options", steps).train_dataloader.dataset.dataset.pipeline[0]
    assert first == dict(type="RandomFlip", prob=0.5)


def test_a_default_hook_that_mmengine_does_not_have_is_switched_off(project):
    option = "default_hooks.visualization=None"
    assert "visualization" in configure(STUDENT).default_hooks
    hooks = configure(STUDENT, "--cfg-options", option, "default_hooks.timer=None").default_hooks
    assert ("visualization" in hooks, hooks["timer"]) == (False, None)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.py", "model = dict(", "SyntaxError"),
        ("a.py", "model = nothing\n", "name 'nothing' is not defined"),
        ("a.json", "{", "JSONDecodeError"),
        ("a.yaml", "a: [", "while parsing a flow node"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=f"the config {path} cannot be read .*{says}") as caught:
        read_config(str(path))
    assert "\n" not in str(caught.value)


def test_overrides_win_over_the_defaults(project):
    cfg = configure(STUDENT, "--cfg-options", "train_dataloader.num_workers=2")
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.val_dataloader.persistent_workers is False  # torch refuses it without workers
    assert cfg.train_dataloader.collate_fn.type == "mmkd_logit.batch_collate"
    cfg = configure(STUDENT, "--cfg-options", "train_dataloader.persistent_workers=True")
    assert cfg.train_dataloader.persistent_workers is False
    words = ["--no-persistent-workers", "--cfg-options", "train_dataloader.num_workers=2"]
    assert configure(STUDENT, *words).train_dataloader.persistent_workers is False
    assert configure(STUDENT, "--cfg-options", "model.backbone.depth=16").model.backbone.depth == 16


def test_memory_is_pinned_where_there_is_a_gpu(project, monkeypatch):
    assert configure(STUDENT).train_dataloader.pin_memory is torch.cuda.is_available()
    monkeypatch.setattr("mmkd_logit.engine.launch.get_device", lambda: "cuda")
    assert configure(STUDENT).train_dataloader.pin_memory is True
    assert configure(STUDENT, "--no-pin-memory").train_dataloader.pin_memory is False


def test_work_folder(project, tmp_path):
    assert configure(STUDENT).work_dir == f"work_dirs/{Path(STUDENT).stem}/seed0"
    assert configure(STUDENT, "--seed", "7").work_dir.endswith("/seed7")
    assert configure(STUDENT, "--work-dir", "a b").work_dir == "a b"
    assert configure(STUDENT, "--cfg-options", "work_dir=3").work_dir == "3"
    assert configure(STUDENT, "--cfg-options", "randomness.seed=4").work_dir.endswith("/seed4")
    own = tmp_path / "own.py"
    own.write_text("model = dict(type='X')\ntrain_cfg = dict()\ntrain_dataloader = dict()\n")
    assert configure(str(own)).work_dir == "work_dirs/own"
    own.write_text(own.read_text() + "work_dir = 'mine'\nrandomness = None\n")
    assert configure(str(own), "--seed", "2").work_dir == "mine"
    assert configure(str(own), "--seed", "2").randomness.seed == 2
    assert default_work_dir("mmpretrain::resnet/resnet18_8xb16_cifar10.py", None) == (
        "work_dirs/resnet18_8xb16_cifar10"
    )


def test_configs_in_strange_folders(workplace):
    folder = Path("mein Ordner, 模型")
    folder.mkdir()
    file = folder / "kleines Netz.py"
    file.write_text(f"_base_ = '../{STUDENT}'\n")
    cfg = configure(str(file))
    assert cfg.model.backbone.depth == 10
    assert cfg.work_dir == "work_dirs/kleines Netz/seed0"


def test_mmpretrain_configs():
    cfg = read_config("mmpretrain::resnet/resnet18_8xb16_cifar10.py")
    assert cfg.model.type == "ImageClassifier"


def test_base_that_is_missing(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = './b.py'\nmodel = dict(type='X')\n")
    with pytest.raises(FileNotFoundError, match=r"b\.py"):
        read_config(str(tmp_path / "a.py"))


def test_one_data_root_reaches_every_data_set(project):
    cfg = configure("configs/wrn/wrn16-1.py", "--cfg-options", "data_root=my data/cifar")
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.dataset.data_root == "my data/cifar"


def test_logits_that_choose_samples_count_and_not_when_they_were_exported(project, tmp_path):
    config, file = "configs/data_amount/wrn10-1-thin_entropy_digits.py", tmp_path / "train.npz"
    words = ["--cfg-options", f"train_dataloader.dataset.scores={file}"]
    label = np.arange(8) % 2
    arrays = dict(index=np.arange(8), label=label, clean_label=label, logits=np.eye(8)[:, :2])

    def hash_with(**changes):
        np.savez(file, **(arrays | changes))
        return hash_of(config, *words)

    missing = hash_of(config, *words)
    first = hash_with(identity=np.array('{"commit": "a"}'))
    assert first != missing
    assert hash_with(identity=np.array('{"commit": "another"}'), prelogits=np.ones(8)) == first
    others = [dict(logits=1 - arrays["logits"]), dict(label=1 - label), dict(index=label)]
    damaged = dict(logits=np.zeros(8))
    assert len({first, missing, *(hash_with(**each) for each in [*others, damaged])}) == 6


@pytest.mark.parametrize(
    "words",
    [
        ["--work-dir", "elsewhere"],
        ["--no-pin-memory"],
        ["--no-persistent-workers"],
        ["--resume"],
        ["--train-teacher", "--results", "r.jsonl"],
        ["--cfg-options", "data_root=elsewhere"],
        ["--cfg-options", "experiment_name=me", "log_level=ERROR", "resume=True"],
        ["--cfg-options", "default_hooks.logger.interval=1"],
        ["--cfg-options", "train_dataloader.pin_memory=True"],
        ["--cfg-options", "train_dataloader.num_workers=2"],
        ["--cfg-options", "train_cfg.val_interval=9"],
    ],
)
@pytest.mark.parametrize("config", [KD, "configs/wrn/wrn16-1.py"])
def test_the_hash_ignores_where_and_how(project, config, words):
    assert hash_of(config) == hash_of(config, *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "1"],
        ["--cfg-options", "model.alpha=0.9"],
        ["--cfg-options", "model.student.backbone.drop_rate=0.1"],
        ["--cfg-options", "train_dataloader.batch_size=32"],
        ["--cfg-options", "optim_wrapper.optimizer.lr=0.2"],
        ["--cfg-options", "param_scheduler.milestones=[15,24]"],
        ["--cfg-options", "load_from=start.pth"],
        ["--cfg-options", "default_hooks.param_scheduler=None"],
        ["--cfg-options", "custom_hooks.0.type=mmengine.EMAHook"],
        ["--auto-scale-lr"],
    ],
)
def test_the_hash_sees_what_is_computed(project, words):
    assert hash_of(KD) != hash_of(KD, *words)


@pytest.mark.parametrize(
    "cache", [{}, dict(dtype="float32", storage="memory"), dict(root="a", max_gib=1), None]
)
def test_the_hash_ignores_an_exact_teacher_cache(project, cache):
    cfg = configure(KD)
    cfg.model.teacher.micro_batch = 32
    expected = fingerprint_of(cfg)
    cfg.model.teacher.cache = cache
    assert fingerprint_of(cfg) == expected
    cfg.model.teacher = [cfg.model.teacher]
    ensemble = fingerprint_of(cfg)
    cfg.model.teacher[0].pop("cache")
    assert fingerprint_of(cfg) == ensemble != expected
    stage = dict(begin=1, teacher=cfg.model.teacher[0])
    cfg.custom_hooks = [dict(type="mmkd_logit.SequentialTeacherHook", stages=[stage])]
    staged = fingerprint_of(cfg)
    cfg.custom_hooks[0].stages[0].teacher.cache = cache
    assert fingerprint_of(cfg) == staged != ensemble


def test_the_hash_sees_how_a_teacher_computes_and_rounds(project):
    cfg, seen = configure(KD), set()
    settings = dict(
        plain={},
        half=dict(cache=dict(dtype="float16")),
        layout=dict(channels_last=True),
        precision=dict(autocast="bfloat16"),
        compiled=dict(compile=True),
        pieces=dict(micro_batch=32),
        both=dict(micro_batch=16, cache=dict(dtype="float16")),
    )
    for options in settings.values():
        cfg.model.teacher = {**configure(KD).model.teacher, **options}
        seen.add(fingerprint_of(cfg))
    assert len(seen) == len(settings)
    # Where and how much of it is kept changes no result, also of a rounding one.
    cfg.model.teacher.cache.update(root="elsewhere", max_gib=1, storage="disk")
    assert fingerprint_of(cfg) in seen


def test_the_hash_sees_the_batches_that_a_cache_computes_in(project):
    """Below 31 images a network rounds otherwise, and on a GPU at any size."""
    hashes = []
    for options in ({}, dict(cache={}), dict(micro_batch=32), dict(cache=None)):
        cfg = configure(KD)
        cfg.model.teacher.update(options)
        hashes.append(fingerprint_of(cfg))
    plain, cached, pieces, without = hashes
    assert cached == pieces != plain == without


def test_the_hash_sees_caches_of_others(project):
    cfg = configure(KD)
    before = fingerprint_of(cfg)
    cfg.train_dataloader.dataset.cache = dict(dtype="float32")
    assert fingerprint_of(cfg) != before


def test_the_hash_sees_hooks_that_change_weights(workplace):
    Path("plain.py").write_text(f"_base_ = './{STUDENT}'\n")
    Path("bar.py").write_text(
        "_base_ = './plain.py'\ncustom_hooks = [dict(type='mmkd_logit.ProgressBarHook')]\n"
    )
    Path("ema.py").write_text("_base_ = './plain.py'\ncustom_hooks = [dict(type='EMAHook')]\n")
    assert hash_of("plain.py") == hash_of("bar.py") != hash_of("ema.py")
    assert hash_of("plain.py") == hash_of(STUDENT)


@pytest.mark.parametrize(
    ("config", "counts"), [(KD, False), ("configs/noisy_teacher/wrn28-4_stop53.py", True)]
)
def test_validation_counts_where_something_acts_on_it(project, config, counts):
    here = fingerprint_of(configure(config))
    for change in (
        {"train_cfg.val_interval": 7},
        {"val_dataloader.batch_size": 3},
        {"val_dataloader.dataset.dataset.split": "val"},
        {"val_evaluator.0.topk": (2,)},
    ):
        cfg = configure(config)
        cfg.merge_from_dict(change)
        assert (fingerprint_of(cfg) != here) == counts
    for name in ("test_evaluator", "test_dataloader"):
        cfg = configure(config)
        cfg[name] = None
        assert fingerprint_of(cfg) == here


def test_transforms_at_a_wrapper_replace_those_of_the_data_set_in_it(project):
    cfg = configure(KD)
    here, dataset = fingerprint_of(cfg), cfg.train_dataloader.dataset
    dataset.pipeline = dataset.dataset.pipeline
    assert fingerprint_of(cfg) == here
    dataset.dataset.pipeline = []
    assert fingerprint_of(cfg) == here
    dataset.pipeline = dataset.pipeline[1:]
    assert fingerprint_of(cfg) != here


@pytest.mark.parametrize("config", [KD, "configs/noisy_teacher/wrn28-4_stop53.py"])
def test_prefixes_of_packages_do_not_count(project, config):
    """A class may move, and be named by a string or itself."""
    cfg = configure(config)
    here = fingerprint_of(cfg)

    def without(value):
        if isinstance(value, dict):
            return {k: without(item) for k, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [without(item) for item in value]
        is_class = str(value).startswith(("mm", "torch.")) and "::" not in str(value)
        return value.rpartition(".")[-1] if is_class else value

    plain = Config(without(cfg.to_dict()))
    assert plain.optim_wrapper.optimizer.type == "SGD"
    plain.default_scope = None
    assert fingerprint_of(plain) == here
    plain.optim_wrapper.optimizer.type = torch.optim.SGD
    assert fingerprint_of(plain) == here
    plain.optim_wrapper.optimizer.type = "elsewhere.SGD"
    assert fingerprint_of(plain) != here


def test_a_teacher_counts_by_weights_and_network(project, tmp_path):
    cfg = configure(KD)
    student = MODELS.build(cfg.model.student)
    seen = {}

    def fingerprint_with(name, state, **meta):
        torch.save(dict(state_dict=state, **meta), tmp_path / name)
        cfg.model.teacher.checkpoint = str(tmp_path / name)
        return fingerprint_of(cfg)

    seen["a"] = fingerprint_with("a.pth", student.state_dict())
    moved = fingerprint_with("b.pth", student.state_dict(), meta=dict(time="noon"), optimizer={})
    assert moved == seen["a"]
    other = {key: value + 1 for key, value in student.state_dict().items()}
    assert fingerprint_with("a.pth", other) != seen["a"]  # the file has been written anew
    assert fingerprint_with("a.pth", student.state_dict()) == seen["a"]
    # The same network under another name, and another network.
    text = config_path(cfg.model.teacher.config)
    (tmp_path / "copy.py").write_text(f"_base_ = '{text}'\n")
    cfg.model.teacher.config = str(tmp_path / "copy.py")
    assert fingerprint_of(cfg) == seen["a"]
    (tmp_path / "copy.py").write_text(f"_base_ = '{text}'\nmodel = dict(backbone=dict(depth=22))\n")
    assert fingerprint_of(cfg) != seen["a"]


def test_a_teacher_may_be_written_as_a_path_or_a_network(project):
    cfg = configure(KD)
    path = cfg.model.teacher.config
    seen = set()
    for teacher in (path, dict(config=path), load_config(path).model.to_dict()):
        cfg.model.teacher = teacher
        seen.add(computed_content(cfg)["model"]["teacher"]["network"]["backbone"]["depth"])
    assert seen == {16}


def test_a_content_outlives_the_rules(project):
    """What a row keeps is plain, and its fingerprint is computed from it alone."""
    cfg = configure(KD)
    content = computed_content(cfg)
    assert json.loads(json.dumps(content)) == content == reduce_content(content)
    assert fingerprint(content) == fingerprint_of(cfg)
    later = dict(content, visualizer=dict(name="v"), custom_hooks=[dict(type="ProgressBarHook")])
    later["train_dataloader"] = dict(content["train_dataloader"], num_workers=3)
    assert fingerprint(later) == fingerprint_of(cfg)
    assert fingerprint(dict(content, processes=2)) == fingerprint_of(cfg, 2) != fingerprint_of(cfg)


def test_the_hash_is_the_same_on_another_machine(project, monkeypatch):
    here = hash_of(KD)
    monkeypatch.setattr("mmkd_logit.engine.launch.get_device", lambda: "cuda")
    assert hash_of(KD) == here
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    assert hash_of(KD) == here
    assert len(here) == 16


def test_amp(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type="SGD"))))
    use_amp(cfg)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.optim_wrapper.loss_scale == "dynamic"
    use_amp(cfg)  # twice does no harm
    with pytest.raises(ValueError, match="cannot change the optimizer wrapper ApexOptimWrapper"):
        use_amp(Config(dict(optim_wrapper=dict(type="ApexOptimWrapper"))))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--amp needs a GPU"):
        use_amp(cfg)


def test_local_rank_of_the_older_launcher(project, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    args = build_parser().parse_args([STUDENT, "--local-rank", "3"])
    apply_common_arguments(read_config(STUDENT), args)
    assert os.environ["LOCAL_RANK"] == "3"


@pytest.mark.parametrize(("launcher", "rank"), [("mpi", "2"), ("none", "0")])
def test_local_rank_of_mpi(project, monkeypatch, launcher, rank):
    """DDP names its GPU by it, and MMEngine sets it for slurm alone."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "2")
    args = build_parser().parse_args([STUDENT, "--launcher", launcher])
    apply_common_arguments(read_config(STUDENT), args)
    assert os.environ["LOCAL_RANK"] == rank

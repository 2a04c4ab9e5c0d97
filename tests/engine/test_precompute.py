"""What is precomputed is what training looks up."""

import itertools
import os
import re
from pathlib import Path

import pytest
import torch
from commands import KD, error_of
from disks import fill, small_disk
from mmengine.config import Config
from networks import build
from runs import assert_same

from mmkd_logit.engine import train as training
from mmkd_logit.engine.cli import TrainingStarted
from mmkd_logit.engine.precompute import main

IMAGES = 64
TEACHER = "configs/wrn/wrn10-1-thin_digits.py"

_CONFIG = f"""
_base_ = './{KD}'
data_preprocessor = dict(type='mmkd_logit.BatchPreprocessor')
train_cfg = dict(max_epochs=2, val_interval=2)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.InMemoryDataset',
        dataset=dict(
            type='mmkd_logit.Digits', split='train', indices={IMAGES},
            pipeline=[dict(type='RandomCrop', crop_size=8, padding=1), dict(type='PackInputs')])),
    sampler=dict(
        _delete_=True, type='mmkd_logit.SeededSampler',
        sampler=dict(type='DefaultSampler', shuffle=True)),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
val_dataloader = dict(dataset=dict(dataset=dict(indices=20)))
model = dict(teacher=dict(
    config='{TEACHER}', checkpoint='teacher.pth', micro_batch=8, cache=dict(storage='disk')))
"""


@pytest.fixture
def config(workplace):
    """A kd config on digits in memory, whose teacher is there and has a cache on disk."""
    cfg = Config.fromfile(TEACHER)
    torch.save(build(cfg.model.to_dict(), seed=4).state_dict(), "teacher.pth")
    Path("kd.py").write_text(_CONFIG)
    return "kd.py"


def precompute(capsys, *words):
    """Run tools/precompute.py; return how many logits it computed and found."""
    capsys.readouterr()
    main([*map(str, words)])
    found = re.search(r"^(\d+) logits computed, (\d+) were there$", capsys.readouterr().out, re.M)
    return int(found[1]), int(found[2])


_runs = itertools.count()


def train(config, *words, **options):
    """Run tools/train.py; return its weights, and hits and misses of its teacher's cache."""
    run = f"cache{next(_runs)}"
    args = [config, "--work-dir", run, *words, "--cfg-options", f"experiment_name={run}"]
    args += [f"{key.replace('__', '.')}={value}" for key, value in options.items()]
    args = training.build_parser().parse_args(args)
    runner = training.run_training(training.build_config(args), args.resume, TrainingStarted())
    cache = runner.model.teachers[0].cache
    weights = {key: value.clone() for key, value in runner.model.state_dict().items()}
    return weights, None if cache is None else (cache.hits, cache.misses)


def test_deterministic_as_the_run(config, capsys, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    words = ["--epochs", 1, "--seed", 7, "--cfg-options", "randomness.deterministic=True"]
    try:
        assert precompute(capsys, config, *words) == (IMAGES, 0)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_run_finds_every_view_that_it_draws(config, capsys):
    assert precompute(capsys, config, "--epochs", 1, "--seed", 7) == (IMAGES, 0)
    computed, found = precompute(capsys, config, "--seed", 7)  # goes on where it was cut off
    assert found >= IMAGES  # the second epoch draws some views again
    assert computed == 2 * IMAGES - found > 0
    warm, asked = train(config, "--seed", "7")
    assert asked == (2 * IMAGES, 0)
    plain, asked = train(config, "--seed", "7", model__teacher__cache="None")
    assert asked is None
    assert_same(warm, plain)
    cold, (hits, misses) = train(config, "--seed", "7", model__teacher__cache__root="cold")
    assert misses == IMAGES + computed == 2 * IMAGES - hits
    assert_same(cold, plain)
    other, (_, misses) = train(config, "--seed", "8")
    assert misses > 0  # no view beyond those of seed 7
    assert any(not torch.equal(other[key], cold[key]) for key in cold)


def test_a_subset_shares_the_cache_of_all_images(config, capsys):
    Path("half.py").write_text(
        f"_base_ = './{config}'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd_logit.DataSubset', "
        "per_class=0.5, seed=0, dataset={{_base_.train_dataloader.dataset}}))\n"
    )
    precompute(capsys, config, "--seed", 3)
    assert precompute(capsys, "half.py", "--seed", 3)[0] == 0


def test_logits_are_computed_in_the_precision_of_the_run(config, capsys):
    """The teacher follows the surrounding step where nothing else is said of it."""
    Path("half.py").write_text(
        f"_base_ = './{config}'\n"
        "optim_wrapper = dict(type='mmkd_logit.AutocastOptimWrapper', dtype='bfloat16')\n"
    )
    assert precompute(capsys, "half.py", "--epochs", 1) == (IMAGES, 0)
    assert precompute(capsys, config, "--epochs", 1) == (IMAGES, 0)
    assert train("half.py", "--epochs", "1")[1] == (IMAGES, 0)


def test_a_cache_that_takes_nothing_is_an_error(config, capsys):
    option = "model.teacher.cache.max_gib=1e-6"
    said = error_of(capsys, main, config, "--cfg-options", option)
    assert "the cache of teacher wrn10-1-thin_digits keeps no more logits" in said
    assert not Path("work_dirs/teacher_cache").exists()


@pytest.mark.parametrize("left", [0, 20_000])
def test_a_full_disk_is_an_error(config, capsys, tmp_path, left):
    """Also one that says so only when all is brought to it."""
    with small_disk(tmp_path / "disk") as disk:
        fill(disk, left)
        said = error_of(capsys, main, config, "--cfg-options", f"model.teacher.cache.root={disk}/c")
    assert "keeps no more logits" in said


def test_an_error_of_the_disk_at_the_end_is_one(config, capsys, monkeypatch):
    def full(file):
        if os.readlink(f"/proc/self/fd/{file}").endswith(".bin"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "keeps no more logits" in error_of(capsys, main, config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--cfg-options", "randomness=None"], "set --seed"),
        (["--launcher", "pytorch"], "leave out --launcher"),
        (["--cfg-options", "model.teacher.cache=None"], "no teacher of this config has a cache on"),
        (["--cfg-options", "model.teacher.cache.storage=memory"], "has a cache on disk"),
        (["--cfg-options", "model.teacher.checkpoint=no.pth"], "no.pth does not exist"),
        (["--cfg-options", "model.teacher.cache.root=teacher.pth"], "teacher.pth"),
    ],
)
def test_wrong_words(config, capsys, words, message):
    assert message in error_of(capsys, main, config, *words)


_DATA = "train_dataloader = dict({})\n"
_STOCK = "dict(_delete_=True, type='mmkd_logit.Digits', split='train', pipeline=[PACK])"
_PLAIN = "dict(_delete_=True, type='DefaultSampler', shuffle=True)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_DATA.format("dataset=dict(dataset=dict(pipeline=[CUT, PACK]))"), "Cutout"),
        (_DATA.format(f"dataset={_STOCK}, sampler={_PLAIN}"), "InMemoryDataset"),
        (
            _DATA.format(
                f"collate_fn=dict(type='pseudo_collate'), sampler={_PLAIN}, dataset={_STOCK}"
            ),
            "InMemoryDataset",
        ),
        (
            "model = dict(student=dict(train_cfg=dict(augments=dict(type='Mixup', alpha=1.0))))\n",
            "MixUp",
        ),
    ],
)
def test_images_whose_views_have_no_number(config, capsys, change, message):
    change = change.replace("CUT", "dict(type='Cutout', shape=2)")
    change = change.replace("PACK", "dict(type='PackInputs')")
    Path("other.py").write_text(f"_base_ = './{config}'\n{change}")
    assert message in error_of(capsys, main, "other.py")


def test_a_plain_config_has_no_teacher(workplace, capsys):
    assert "no teacher of this config" in error_of(capsys, main, TEACHER)

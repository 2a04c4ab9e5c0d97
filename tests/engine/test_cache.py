"""Filled in advance is filled with what training asks for."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import KD, error_of
from mmengine.config import Config
from networks import build
from runs import assert_same

from mmkd_logit.engine import train as train_config
from mmkd_logit.engine import train as training
from mmkd_logit.engine.precompute import CacheFiller, build_parser, main

IMAGES, BATCH = 64, 16
TEACHER = "configs/wrn/wrn10-1-thin_digits.py"

_CONFIG = f"""
_base_ = './{KD}'
data_preprocessor = dict(type='mmkd_logit.BatchPreprocessor')
train_cfg = dict(max_epochs=2, val_interval=2)
train_dataloader = dict(
    batch_size={BATCH},
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


def command(capsys, *words):
    """Run tools/cache.py; return what it prints."""
    capsys.readouterr()
    main([*map(str, words)])
    return capsys.readouterr().out


def computed(text):
    return int(re.search(r"(\d+) logits computed", text)[1])


_STOCK = "dict(_delete_=True, type='mmkd_logit.Digits', split='train', pipeline=[PACK])"
_PLAIN = "dict(_delete_=True, type='DefaultSampler', shuffle=True)"
_runs = 0


def train(config, *words, **options):
    """Run tools/train.py; return its weights, and hits and misses of its teacher's cache."""
    global _runs
    _runs += 1
    options = {"experiment_name": f"cache{_runs}", **options}
    args = [config, "--work-dir", f"run{_runs}", *words]
    args += ["--cfg-options", *(f"{key.replace('__', '.')}={v}" for key, v in options.items())]
    args = train_config.build_parser().parse_args(args)
    started = training.TrainingStarted()
    runner = training.run_training(train_config.build_config(args), args.resume, started)
    cache = runner.model.teachers[0].cache
    weights = {key: value.clone() for key, value in runner.model.state_dict().items()}
    return weights, None if cache is None else (cache.hits, cache.misses)


def test_all_views_are_what_every_run_asks_for(config, capsys):
    said = command(capsys, "fill", config)
    assert computed(said) == IMAGES * 9
    assert "64 x 9 views x 10 float32, computed in float32; 100.0% full" in said
    assert computed(command(capsys, "fill", config, "--views", "all")) == 0
    warm, asked = train(config)
    assert asked == (2 * IMAGES, 0)
    _, asked = train(config, "--seed", "5")
    assert asked == (2 * IMAGES, 0)
    plain, asked = train(config, model__teacher__cache="None")
    assert asked is None
    assert_same(warm, plain)


def test_the_epochs_of_a_run_are_what_it_asks_for(config, capsys):
    said = command(capsys, "fill", config, "--epochs", 1, "--seed", 7)
    assert computed(said) == IMAGES
    mixed, (hits, misses) = train(config, "--seed", "7")
    assert hits >= IMAGES  # the second epoch draws some views again
    assert 0 < misses < IMAGES
    assert computed(command(capsys, "fill", config, "--epochs", 2, "--seed", 7)) == 0
    cold, asked = train(config, "--seed", "7", model__teacher__cache__root="cold")
    assert asked[1] == IMAGES + misses
    assert_same(cold, mixed)
    other, (_, misses) = train(config, "--seed", "8")
    assert misses > 0
    assert any(not torch.equal(other[key], cold[key]) for key in cold)


def test_a_resumed_run_gives_the_same_with_and_without_the_cache(config, capsys):
    whole, _ = train(config, default_hooks__checkpoint__interval=1)
    folder = f"run{_runs}"
    for cache in ("dict(storage='memory')", "None"):
        name = f"again{cache[:4]}"
        options = [f"experiment_name={name}", "default_hooks.checkpoint.interval=1"]
        if cache == "None":
            options.append("model.teacher.cache=None")
        args = [config, "--work-dir", folder, "--resume", f"{folder}/epoch_1.pth"]
        args = train_config.build_parser().parse_args([*args, "--cfg-options", *options])
        started = training.TrainingStarted()
        runner = training.run_training(train_config.build_config(args), args.resume, started)
        assert_same(dict(runner.model.state_dict()), whole)


def test_filling_goes_on_where_it_was_cut_off(config, capsys):
    args = build_parser().parse_args(["fill", config])
    from mmkd_logit.engine.precompute import build_config

    filler = CacheFiller(build_config(args))
    pictures, total = filler.every()
    first = next(pictures)
    assert total == IMAGES * 9
    filler.fill(iter([first]), total)
    there = len(first[1].index)
    assert computed(command(capsys, "fill", config)) == total - there


def test_every_view_is_the_picture_of_its_number(config):
    from mmkd_logit.engine.precompute import build_config

    filler = CacheFiller(build_config(build_parser().parse_args(["fill", config])))
    shown = {}
    for images, views in filler.every()[0]:
        for image, *key in zip(images, views.index, views.view, strict=True):
            shown[tuple(key)] = image
    assert len(shown) == IMAGES * 9
    drawn = 0
    for images, views in filler.drawn(20, seed=3)[0]:
        for image, *key in zip(images, views.index, views.view, strict=True):
            assert torch.equal(image, shown[tuple(key)])
            drawn += 1
    assert drawn == 20 * IMAGES


def test_only_images_that_are_trained_on_are_filled(config, capsys):
    Path("half.py").write_text(
        f"_base_ = './{config}'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd_logit.DataSubset', "
        "per_class=0.5, seed=0, dataset={{_base_.train_dataloader.dataset}}))\n"
    )
    said = command(capsys, "fill", "half.py")
    assert IMAGES * 9 * 0.4 < computed(said) < IMAGES * 9 * 0.6
    filled = computed(said)
    _, asked = train("half.py")
    assert asked[1] == 0
    # The cache is that of all images: a run on all of them goes on with it.
    assert computed(command(capsys, "fill", config)) == IMAGES * 9 - filled


def test_filled_in_the_precision_of_the_run(config, capsys):
    """The teacher follows the surrounding step where nothing else is said of it."""
    own = "model.teacher.autocast=bfloat16"
    command(capsys, "fill", config, "--cfg-options", own)
    _, asked = train(config, model__teacher__autocast="bfloat16")
    assert asked == (2 * IMAGES, 0)
    _, asked = train(config)
    assert asked[1] > 0


def test_inspect_and_verify(config, capsys):
    assert "there is no folder work_dirs/teacher_cache" in error_of(capsys, main, "inspect")
    command(capsys, "fill", config, "--epochs", 1)
    (meta,) = Path("work_dirs/teacher_cache").glob("*/meta.json")
    os.utime(meta, (0, time.mktime((2021, 5, 7, 1, 2, 3, 0, 0, -1))))
    for words in ((), ("work_dirs/teacher_cache",), (meta.parent,)):
        said = command(capsys, "inspect", *words)
        assert said.startswith(f"{meta.parent.name}  teacher wrn10-1-thin_digits ")
        assert said.endswith("used 2021-05-07 01:02\n")
        assert f"{IMAGES / (IMAGES * 9):.1%} full" in said
    assert command(capsys, "verify") == (
        f"{meta.parent.name}  {IMAGES} logits fit their checksums, 0 do not\n"
    )
    sums = np.fromfile(meta.parent / "checksums.bin", np.uint32)
    place = int(np.flatnonzero(sums)[5]) * 40
    with open(meta.parent / "logits.bin", "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(SystemExit):
        main(["verify"])
    out, err = capsys.readouterr()
    assert f"{IMAGES - 1} logits fit their checksums, 1 do not" in out
    assert "a cache is damaged" in err
    # What is damaged is computed again.
    assert computed(command(capsys, "fill", config, "--epochs", 1)) == 1
    assert "0 do not" in command(capsys, "verify")
    (meta.parent / "logits.bin").write_bytes(b"")
    for name in ("inspect", "verify"):
        with pytest.raises(SystemExit):
            main([name])
        assert "lacks files, or they were cut short" in capsys.readouterr().out
    meta.write_text("{")
    with pytest.raises(SystemExit):
        main(["verify"])
    assert "cannot be read" in capsys.readouterr().out


def test_an_empty_folder_has_no_caches(workplace, capsys):
    Path("empty").mkdir()
    assert command(capsys, "inspect", "empty") == "no caches\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs is a positive number"),
        (["--epochs", "2", "--views", "all"], "excludes --views"),
        (["--seed", "2"], "--seed goes with --epochs"),
        (["--amp"], "leave out --amp"),
        (["--launcher", "pytorch"], "filled by one process"),
        (["--cfg-options", "model.teacher.cache=None"], "no teacher of this config has a cache on"),
        (["--cfg-options", "model.teacher.cache.storage=memory"], "has a cache on disk"),
        (["--cfg-options", "model.teacher.checkpoint=no.pth"], "no.pth does not exist"),
        (["--cfg-options", "model.teacher.cache.root=teacher.pth"], "teacher.pth"),
    ],
)
def test_wrong_words(config, capsys, words, message):
    assert message in error_of(capsys, main, "fill", config, *words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dataset=dict(dataset=dict(pipeline=[CUT, PACK]))", "Cutout"),
        (
            "dataset=STOCK, sampler=PLAIN",
            "InMemoryDataset",
        ),
        ("collate_fn=dict(type='pseudo_collate'), sampler=PLAIN, dataset=STOCK", "whole batches"),
    ],
)
def test_pictures_without_numbers(config, capsys, change, message):
    change = change.replace("CUT", "dict(type='Cutout', shape=2)")
    change = change.replace("STOCK", _STOCK).replace("PLAIN", _PLAIN)
    change = change.replace("PACK", "dict(type='PackInputs')")
    Path("other.py").write_text(f"_base_ = './{config}'\ntrain_dataloader = dict({change})\n")
    for words in ([], ["--epochs", "1"]):
        assert message in error_of(capsys, main, "fill", "other.py", *words)


def test_mixed_pictures_have_no_numbers(config, capsys):
    Path("mixed.py").write_text(
        f"_base_ = './{config}'\n"
        "model = dict(student=dict(train_cfg=dict(augments=dict(type='Mixup', alpha=1.0))))\n"
    )
    assert "MixUp" in error_of(capsys, main, "fill", "mixed.py")


def test_a_plain_config_has_no_teacher(workplace, capsys):
    assert "has no teacher" in error_of(capsys, main, "fill", TEACHER)

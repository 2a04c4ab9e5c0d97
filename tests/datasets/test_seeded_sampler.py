import itertools

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from runs import assert_same, digits_student, run_config, weights

from mmkd_logit.datasets import SampleKey, SeededSampler
from mmkd_logit.engine.runner import end_workers

SHUFFLED = dict(type="DefaultSampler", shuffle=True)
ENDLESS = dict(type="InfiniteSampler", shuffle=True)


def be_rank(monkeypatch, rank, world=2):
    monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (rank, world))


def test_indices_are_the_wrapped_samplers():
    sampler = SeededSampler(range(11), SHUFFLED, seed=4)
    plain = DefaultSampler(range(11), shuffle=True, seed=4)
    orders = []
    for epoch in (0, 1, 7, 1):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        keys = list(sampler)
        orders.append([key.idx for key in keys])
        assert orders[-1] == list(plain)
        assert {(key.seed, key.epoch) for key in keys} == {(4, epoch)}
    assert orders[1] == orders[3]
    assert orders[0] != orders[1]
    assert len(sampler) == len(plain) == 11
    assert not hasattr(sampler, "skip")


def test_an_epoch_in_progress_keeps_its_number():
    sampler = SeededSampler(range(3), SHUFFLED, seed=0)
    sampler.set_epoch(5)
    keys = iter(sampler)
    next(keys)
    sampler.set_epoch(6)
    assert {key.epoch for key in keys} == {5}


def test_ranks_share_epoch_and_seed(monkeypatch):
    parts = []
    for rank in (0, 1):
        be_rank(monkeypatch, rank)
        sampler = SeededSampler(range(10), SHUFFLED, seed=1)
        sampler.set_epoch(3)
        parts.append(list(sampler))
    joined = [key for pair in zip(*parts, strict=True) for key in pair]
    be_rank(monkeypatch, 0, 1)
    alone = SeededSampler(range(10), SHUFFLED, seed=1)
    alone.set_epoch(3)
    assert joined == list(alone)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_endless_stream_counts_passes_of_all_ranks(world, monkeypatch):
    """Whatever the number of ranks, the k-th key of the joined stream is of epoch k // N."""
    streams = []
    for rank in range(world):
        be_rank(monkeypatch, rank, world)
        streams.append(
            itertools.islice(iter(SeededSampler(range(7), ENDLESS, seed=2)), 30 // world)
        )
    joined = [key for row in zip(*streams, strict=True) for key in row]
    be_rank(monkeypatch, 0, 1)
    indices = itertools.islice(iter(InfiniteSampler(range(7), seed=2)), 30)
    expected = [SampleKey(2, place // 7, index) for place, index in enumerate(indices)]
    assert joined == expected[: len(joined)]
    assert joined[-1].epoch == 4


def test_endless_stream_after_a_skip():
    whole = list(itertools.islice(iter(SeededSampler(range(7), ENDLESS, seed=2)), 40))
    resumed = SeededSampler(range(7), ENDLESS, seed=2)
    resumed.set_epoch(9)  # means nothing here
    if not hasattr(InfiniteSampler, "skip"):
        assert not hasattr(resumed, "skip")
        return
    resumed.skip(25)
    assert list(itertools.islice(iter(resumed), 15)) == whole[25:]


def test_without_a_seed_both_use_the_same_random_one():
    sampler = SeededSampler(range(50), SHUFFLED)
    other = SeededSampler(range(50), SHUFFLED)
    assert sampler.seed == sampler.sampler.seed == next(iter(sampler)).seed
    assert sampler.seed != other.seed


def test_different_seeds_of_the_ranks():
    """MMEngine then passes None, and all ranks agree on one number: here there is one rank."""
    init_default_scope("mmpretrain")
    dataset = dict(type="mmkd_logit.Digits", indices=8, pipeline=[dict(type="PackInputs")])
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(type="mmkd_logit.InMemoryDataset", dataset=dataset),
            sampler=dict(type="mmkd_logit.SeededSampler", sampler=SHUFFLED),
            collate_fn=dict(type="mmkd_logit.batch_collate"),
            batch_size=8,
        ),
        seed=7,
        diff_rank_seed=True,
    )
    assert loader.sampler.seed == loader.sampler.sampler.seed != 7
    assert len(next(iter(loader))["data_samples"]) == 8


def test_repeated_augmentation_is_refused():
    with pytest.raises(ValueError, match="RepeatAugSampler shows a sample in several pictures"):
        SeededSampler(range(9), dict(type="RepeatAugSampler"), seed=0)


# -- runs -------------------------------------------------------------------------------------


def augmented(work_dir, seeded=True, memory=True, sampler=SHUFFLED, workers=0, **settings):
    """Config of a run on digits with random crops."""
    cfg = run_config(digits_student(), work_dir, **settings)
    loader = cfg.train_dataloader
    loader.dataset.pipeline = [
        dict(type="RandomCrop", crop_size=8, padding=2),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackInputs"),
    ]
    if seeded:
        name = "InMemoryDataset" if memory else "SeededDataset"
        loader.dataset = dict(type=f"mmkd_logit.{name}", dataset=loader.dataset)
        sampler = dict(type="mmkd_logit.SeededSampler", sampler=sampler)
    loader.sampler = sampler
    loader.collate_fn = dict(type="mmkd_logit.batch_collate")
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    cfg.data_preprocessor.type = "mmkd_logit.BatchPreprocessor"
    cfg.default_hooks.checkpoint.setdefault("interval", 1)
    return cfg


def trained(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    end_workers(runner)
    return weights(runner)


def resumed(folder, begin="epoch_1.pth", **settings):
    """The weights of a run that goes on from a checkpoint of the one in folder/whole."""
    cfg = augmented(folder / "resumed", **settings)
    cfg.update(resume=True, load_from=str(folder / "whole" / begin))
    return trained(cfg)


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_run_sees_the_pictures_of_the_whole_with_and_without_workers(tmp_path):
    wholes = []
    for memory in (True, False):
        settings = dict(memory=memory, epochs=3)
        wholes.append(trained(augmented(tmp_path / str(memory) / "whole", **settings)))
        assert same(wholes[-1], resumed(tmp_path / str(memory), workers=2, **settings))
    assert not same(*wholes)  # they draw differently, so the test can fail


def test_mmpretrains_own_way_does_not(tmp_path):
    """The control: what random crops see after resuming is what they saw at the beginning."""
    settings = dict(seeded=False, epochs=2)
    whole = trained(augmented(tmp_path / "whole", **settings))
    assert not same(whole, resumed(tmp_path, **settings))


@pytest.mark.parametrize("sampler", [ENDLESS, SHUFFLED], ids=["endless", "shuffled"])
def test_resumed_by_iterations(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # MMEngine's, between two epochs
    settings = dict(
        train_cfg=dict(by_epoch=False, max_iters=11, val_interval=100),
        param_scheduler=None,
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=6)),
        log_processor=dict(by_epoch=False),
    )
    whole = trained(augmented(tmp_path / "whole", sampler=sampler, **settings))
    assert same(whole, resumed(tmp_path, begin="iter_6.pth", sampler=sampler, **settings))


def test_the_transforms_change_on_the_way(tmp_path):
    """SwitchRecipeHook's pictures in memory are made one by one then, and seeded as well."""
    switch = dict(type="PackInputs")
    recipe = dict(type="SwitchRecipeHook", schedule=[dict(action_epoch=2, train_pipeline=[switch])])
    runs = [trained(augmented(tmp_path / n, epochs=2, custom_hooks=[recipe])) for n in "ab"]
    assert_same(*runs)

import itertools

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from runs import digits_student, run_config, weights

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


@pytest.mark.parametrize("world", [1, 3])
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
    cfg = dict(
        dataset=dict(type="mmkd_logit.Digits", indices=8, pipeline=[dict(type="PackInputs")]),
        sampler=dict(type="mmkd_logit.SeededSampler", sampler=SHUFFLED),
        batch_size=8,
    )
    cfg["dataset"] = dict(type="mmkd_logit.InMemoryDataset", dataset=cfg["dataset"])
    cfg["collate_fn"] = dict(type="mmkd_logit.batch_collate")
    loader = Runner.build_dataloader(cfg, seed=7, diff_rank_seed=True)
    assert loader.sampler.seed == loader.sampler.sampler.seed != 7
    assert len(next(iter(loader))["data_samples"]) == 8


@pytest.mark.parametrize("sampler", [DefaultSampler, "DefaultSampler"])
def test_what_is_no_config(sampler):
    with pytest.raises(ValueError, match="sampler must be the config of one, such as"):
        SeededSampler(range(3), sampler, seed=0)
    with pytest.raises(ValueError, match="RepeatAugSampler shows a sample in several pictures"):
        SeededSampler(range(9), dict(type="RepeatAugSampler"), seed=0)


# -- runs -------------------------------------------------------------------------------------


def augmented(work_dir, memory, workers=0, **settings):
    """Config of a run on digits with random crops."""
    cfg = run_config(digits_student(), work_dir, **settings)
    loader = cfg.train_dataloader
    loader.dataset.pipeline = [
        dict(type="RandomCrop", crop_size=8, padding=2),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PackInputs"),
    ]
    name = "InMemoryDataset" if memory else "SeededDataset"
    loader.dataset = dict(type=f"mmkd_logit.{name}", dataset=loader.dataset)
    loader.sampler = dict(type="mmkd_logit.SeededSampler", sampler=SHUFFLED)
    loader.collate_fn = dict(type="mmkd_logit.batch_collate")
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    cfg.data_preprocessor.type = "mmkd_logit.BatchPreprocessor"
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


def trained(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    end_workers(runner)
    return weights(runner)


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_run_sees_the_pictures_of_the_whole_with_and_without_workers(tmp_path):
    wholes = []
    for memory in (True, False):
        folder = tmp_path / str(memory)
        wholes.append(trained(augmented(folder, memory, epochs=3)))
        cfg = augmented(folder / "resumed", memory, workers=2, epochs=3)
        cfg.update(resume=True, load_from=str(folder / "epoch_1.pth"))
        assert same(wholes[-1], trained(cfg))
    assert not same(*wholes)  # they draw differently, so the test can fail

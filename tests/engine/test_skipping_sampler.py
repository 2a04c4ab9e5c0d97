"""Consumed batches are skipped, not loaded."""

import itertools

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from mmkd_logit.datasets import SeededSampler
from mmkd_logit.engine.runner import SkippingSampler


class Loads:
    """Data that notes what is read of it, with the epoch where there is one."""

    def __init__(self, size=22):
        self.size, self.seen = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        self.seen.append(key)
        return torch.tensor(key)


def loader_of(data, sampler="default", workers=0, **kwargs):
    inner = dict(
        default=lambda: DefaultSampler(data, seed=3),
        seeded=lambda: SeededSampler(data, dict(type="DefaultSampler", shuffle=True), seed=3),
        endless=lambda: InfiniteSampler(data, seed=3),
    )[sampler]()
    settings = dict(num_workers=workers, persistent_workers=workers > 0, **kwargs)
    return DataLoader(data, batch_size=4, sampler=inner, **settings)


def batches_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("sampler", ["default", "seeded"])
def test_the_rest_of_an_epoch_and_all_of_the_next(sampler, drop_last):
    whole = [batches_of(loader_of(Loads(), sampler, drop_last=drop_last), e) for e in (1, 2)]
    data = Loads()
    loader = loader_of(data, sampler, drop_last=drop_last)
    skipping = SkippingSampler.install(loader)
    assert (len(loader), loader.batch_size) == (len(whole[0]), 4)
    assert (skipping.drop_last, skipping.sampler) == (drop_last, loader.sampler)
    skipping.skip = 2
    assert batches_of(loader, 1) == whole[0][2:]
    assert len(data.seen) == sum(map(len, whole[0][2:]))
    assert batches_of(loader, 2) == whole[1]


def test_workers_that_persist_read_the_rest():
    """Such a loader asks for the batches twice before it reads, and keeps who gives them."""
    whole = [batches_of(loader_of(Loads(), "seeded"), epoch) for epoch in (1, 2)]
    loader = loader_of(Loads(), "seeded", workers=2, prefetch_factor=2)
    skipping = SkippingSampler.install(loader)
    for count in (3, len(whole[0])):
        skipping.skip = count
        assert batches_of(loader, 1) == whole[0][count:]
        assert batches_of(loader, 2) == whole[1]


@pytest.mark.parametrize("sampler", ["default", "endless"])
@pytest.mark.parametrize("count", [0, 3, 6, 13])
def test_without_end(sampler, count):
    whole = loader_of(Loads(), sampler)
    passes = [batches_of(whole, e) for e in range(4)] if sampler == "default" else [whole]
    expected = [torch.as_tensor(b).tolist() for b in itertools.islice(itertools.chain(*passes), 20)]
    data = Loads()
    loader = loader_of(data, sampler)
    skipping = SkippingSampler.install(loader, endless=True)
    skipping.skip = count
    found = itertools.islice(loader, 20 - count)
    assert [batch.tolist() for batch in found] == expected[count:]
    assert len(data.seen) == sum(map(len, expected[count:]))

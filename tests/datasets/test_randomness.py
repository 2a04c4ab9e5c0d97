"""Pictures are a function of seed, epoch and sample, in memory and of any transforms."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS, init_default_scope
from pictures import SEEDED, loader_of, seen
from torch.utils.data import BatchSampler

DIGITS = dict(
    type="mmkd_logit.Digits",
    indices=300,
    pipeline=[
        dict(type="mmpretrain.RandomCrop", crop_size=8, padding=1),
        dict(type="mmpretrain.RandomFlip", prob=0.5),
        dict(type="mmpretrain.PackInputs"),
    ],
)


@pytest.fixture(scope="module", params=["InMemoryDataset", "SeededDataset"])
def dataset(request):
    return dict(type=f"mmkd_logit.{request.param}", dataset=DIGITS)


@pytest.fixture(scope="module")
def reference(dataset):
    return {epoch: seen(loader_of(dataset), epoch) for epoch in (0, 1)}


@pytest.mark.parametrize(
    "settings",
    [
        dict(num_workers=2, batch_size=64),
        dict(num_workers=2, persistent_workers=True),
        dict(batch_size=1000, pin_memory=torch.cuda.is_available()),
        dict(batch_size=7, drop_last=False),
        dict(sampler=dict(SEEDED, sampler=dict(type="DefaultSampler", shuffle=False))),
        dict(batch_sampler=dict(type="BatchSampler", drop_last=False)),
    ],
    ids=str,
)
def test_pictures_depend_on_nothing_else(settings, dataset, reference):
    if "BatchSampler" not in DATA_SAMPLERS:
        DATA_SAMPLERS.register_module(module=BatchSampler)
    loader = loader_of(dataset, **settings)
    for epoch, expected in reference.items():
        assert seen(loader, epoch) == expected


def test_ranks(dataset, reference, monkeypatch):
    both = {}
    for rank in (0, 1):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, 2))
        part = seen(loader_of(dataset), 1)
        assert len(part) == 150
        both.update(part)
    assert both == reference[1]


def test_global_generators_and_pickling_change_nothing(dataset, reference):
    init_default_scope("mmpretrain")
    np.random.seed(11)
    torch.manual_seed(12)
    copy = pickle.loads(pickle.dumps(DATASETS.build(dataset)))
    assert seen(loader_of(copy), 1) == reference[1]


def test_other_seeds_and_epochs_give_other_pictures(dataset, reference):
    """One in 18 views is the same by chance, and some images look alike in several."""
    for other in (reference[1], seen(loader_of(dataset, seed=1), 0)):
        assert other.keys() == reference[0].keys()
        assert np.mean([other[index] == reference[0][index] for index in other]) < 0.2

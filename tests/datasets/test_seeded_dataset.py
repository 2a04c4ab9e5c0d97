import random

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from pictures import CROP, PACK, Pictures, loader_of, seen

from mmkd_logit.datasets import DataSubset, NoisyLabelDataset, SampleKey, SeededDataset

PIPELINE = [
    dict(type="RandomResizedCrop", scale=8),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="ColorJitter", brightness=0.4, contrast=0.4),
    dict(type="RandomErasing", erase_prob=0.5),
    PACK,
]


@TRANSFORMS.register_module()
class ThreeDice:
    """Throw one of each library's; where asked, some samples cannot be read."""

    def __init__(self, unreadable=0.0):
        self.unreadable = unreadable

    def __call__(self, results):
        drawn = [np.random.rand(), random.random(), torch.rand(()).item()]
        if drawn[0] < self.unreadable:
            return None
        return dict(drawn=drawn, sample_idx=results["sample_idx"])


def pictures(*steps, count=60, **settings):
    return Pictures(*[(12, 10, 3)] * count, pipeline=steps or PIPELINE, **settings)


@pytest.fixture(scope="module")
def reference():
    return seen(loader_of(SeededDataset(pictures())))


def test_mmpretrains_own_way_depends_on_the_workers():
    """The control, with plain indices."""
    plain = dict(sampler=dict(type="DefaultSampler", shuffle=True))

    def table(workers):
        np.random.seed(0)
        return seen(
            loader_of(SeededDataset(pictures()), num_workers=workers, batch_size=16, **plain)
        )

    assert table(1) != table(2)


def test_all_three_generators_are_seeded_and_put_back():
    dataset = SeededDataset(pictures(ThreeDice()))

    def states():
        return np.random.rand(3).tolist(), random.random(), torch.rand(3).tolist()

    np.random.seed(0)
    random.seed(0)
    torch.manual_seed(0)
    expected = states()
    np.random.seed(0)
    random.seed(0)
    torch.manual_seed(0)
    first = dataset[SampleKey(1, 2, 3)]["drawn"]
    assert states() == expected
    assert dataset[SampleKey(1, 2, 3)]["drawn"] == first
    for other in (SampleKey(2, 2, 3), SampleKey(1, 3, 3), SampleKey(1, 2, 4)):
        drawn = dataset[other]["drawn"]
        assert all(a != b for a, b in zip(drawn, first, strict=True))
    with pytest.raises(IndexError):
        dataset[SampleKey(0, 0, 60)]
    np.random.seed(0)
    random.seed(0)
    torch.manual_seed(0)
    assert states() == expected


def test_plain_indices_pass():
    dataset = SeededDataset(pictures(ThreeDice()))
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    assert dataset[5]["drawn"][0] == expected


def test_samples_differ_from_each_other():
    """No correlation between the draws of neighbours, epochs or the three libraries."""
    dataset = SeededDataset(pictures(ThreeDice(), count=1))
    drawn = np.array([dataset[SampleKey(0, epoch, 0)]["drawn"] for epoch in range(2000)])
    assert drawn.mean(0) == pytest.approx([0.5] * 3, abs=0.02)
    rows = np.concatenate([drawn[1:], drawn[:-1]], axis=1)
    correlation = np.corrcoef(rows, rowvar=False) - np.eye(6)
    assert np.abs(correlation).max() < 0.08


@pytest.mark.parametrize("noisy", [False, True])
def test_replacements_of_unreadable_samples_are_the_same_too(noisy):
    """Both ways of fetching again: mmengine's and the wrappers'."""
    dataset = pictures(ThreeDice(unreadable=0.5), count=40)
    if noisy:
        dataset = NoisyLabelDataset(dataset, kind="pair", rate=0.5)
    dataset = SeededDataset(dataset)
    found = [dataset[SampleKey(0, 0, index)] for index in range(40)]
    np.random.seed(8)
    assert found == [dataset[SampleKey(0, 0, index)] for index in range(40)]
    moved = sum(data["sample_idx"] != index for index, data in enumerate(found))
    assert 8 < moved < 32


def test_inside_and_outside_of_other_wrappers(reference):
    def noise(dataset):
        return NoisyLabelDataset(dataset, kind="symmetric", rate=0.5)

    def part(dataset):
        return DataSubset(dataset, per_class=0.4)

    tables = []
    for chain in (
        (SeededDataset, part, noise),
        (part, SeededDataset, noise),
        (part, noise, SeededDataset),
    ):
        dataset = pictures()
        for wrap in chain:
            dataset = wrap(dataset)
        tables.append(seen(loader_of(dataset)))
        sample = dataset[SampleKey(0, 0, 3)]["data_samples"]
        assert "clean_label" in sample
        assert dataset.description["label_noise"]["samples"] == len(dataset) == 24
        assert not hasattr(dataset, "__getitems__")
    assert tables[0] == tables[1] == tables[2]
    pictures_alone = {index: row[0] for index, row in tables[0].items()}
    assert pictures_alone == {index: reference[index][0] for index in tables[0]}


def test_unseeded_data_under_a_seeded_sampler():
    noisy = NoisyLabelDataset(pictures(), kind="pair", rate=0.5)
    with pytest.raises(ValueError, match=r"wrap the data set in dict\(type='mmkd_logit.SeededData"):
        next(iter(loader_of(noisy)))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"SeededDataset wraps a BaseDataset, .* got list"):
        SeededDataset([1, 2])
    memory = dict(type="mmkd_logit.InMemoryDataset", dataset=pictures(CROP, PACK))
    with pytest.raises(ValueError, match="pictures in memory are functions of the sample"):
        SeededDataset(memory)


def test_lazy():
    init_default_scope("mmpretrain")
    cfg = dict(type="mmkd_logit.Digits", pipeline=[PACK])
    dataset = DATASETS.build(dict(type="mmkd_logit.SeededDataset", dataset=cfg, lazy_init=True))
    assert not dataset.dataset._fully_initialized
    assert dataset[SampleKey(0, 0, 4)]["data_samples"].sample_idx == 4
    assert dataset.CLASSES[3] == "3"
    assert len(dataset) == 901

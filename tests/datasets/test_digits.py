import itertools
import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mmkd_logit.datasets import Digits
from mmkd_logit.datasets.digits import split_indices

SIZES = dict(train=901, val=362, test=534)
SHARES = dict(train=0.5, val=0.2, test=0.3)


def members(split):
    return [item["digits_index"] for item in Digits(split=split)]


def labels_of(split):
    return np.array([item["gt_label"] for item in Digits(split=split)])


def test_splits_are_the_whole_without_overlap():
    parts = {split: members(split) for split in SIZES}
    assert {split: len(part) for split, part in parts.items()} == SIZES
    assert sorted(itertools.chain(*parts.values())) == list(range(1797))
    for part in parts.values():
        assert part == sorted(part)


@pytest.mark.parametrize("split", SIZES)
def test_every_class_has_its_share(split):
    labels = load_digits().target
    counts = np.bincount(labels_of(split), minlength=10)
    assert counts.sum() == SIZES[split]
    # Of ten in a row the share exactly; only the last, incomplete ten is not.
    assert np.abs(counts - np.bincount(labels) * SHARES[split]).max() < 1.2


def test_stratified_within_one():
    """As close to the shares as whole images allow, when each class has whole tens."""
    labels = np.repeat(np.arange(10), 20)
    np.random.RandomState(0).shuffle(labels)
    for split, share in SHARES.items():
        chosen = labels[split_indices(labels, split)]
        assert (np.bincount(chosen) == 20 * share).all()


def test_images_are_scikit_learns():
    images, labels = load_digits(return_X_y=True)
    for split in SIZES:
        for item in Digits(split=split):
            index = item["digits_index"]
            assert item["gt_label"] == labels[index]
            assert item["img"].shape == (8, 8, 1)
            assert item["img"].dtype == np.uint8
            back = item["img"].reshape(64) * (16 / 255)
            assert np.abs(back - images[index]).max() < 16 / 255
    assert max(item["img"].max() for item in Digits()) == 255


def test_no_random_numbers():
    first = members("train")
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    states = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
    assert members("train") == first
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1][0]).all()
    assert np.random.get_state()[2] == states[1][1]
    assert random.getstate() == states[2]


@pytest.mark.parametrize("split", ["Train", "all", "", None, 3, ["train"]])
def test_other_splits_are_refused(split):
    with pytest.raises(ValueError, match=r"split must be one of \['train', 'val', 'test'\], got "):
        Digits(split=split)


def test_classes_and_options_of_mmpretrain():
    dataset = Digits(split="val", indices=10, test_mode=True)
    assert len(dataset) == 10
    assert list(dataset.CLASSES) == list("0123456789")
    assert dataset.get_cat_ids(0) == [dataset[0]["gt_label"]]
    assert dataset.get_gt_labels().tolist() == [item["gt_label"] for item in dataset]

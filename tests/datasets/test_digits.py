import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmkd_logit.datasets import Digits
from mmkd_logit.datasets.digits import split_indices

SIZES = dict(train=901, val=362, test=534)
SHARES = dict(train=0.5, val=0.2, test=0.3)


def members(split):
    return [item["digits_index"] for item in Digits(split=split)]


def test_splits_are_the_whole_without_overlap():
    parts = {split: members(split) for split in SIZES}
    assert {split: len(part) for split, part in parts.items()} == SIZES
    assert sorted(itertools.chain(*parts.values())) == list(range(1797))
    for part in parts.values():
        assert part == sorted(part)


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

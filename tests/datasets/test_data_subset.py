import itertools

import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmkd_logit.datasets import DataSubset, Digits, NoisyLabelDataset
from mmkd_logit.datasets.draws import WHICH_CHANGE, WHICH_STAY, draw

DIGITS = dict(type="mmkd_logit.Digits", pipeline=[dict(type="mmpretrain.PackInputs")])
LABELS = np.array([item["gt_label"] for item in Digits()])
SIZES = np.bincount(LABELS)
SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 1]


def members(dataset):
    return [dataset.get_data_info(i)["sample_idx"] for i in range(len(dataset))]


@pytest.mark.parametrize("share", SHARES)
def test_share_of_each_class(share):
    part = DataSubset(DIGITS, per_class=share)
    kept = members(part)
    assert kept == sorted(set(kept))
    assert (np.bincount(LABELS[kept]) == np.floor(share * SIZES + 0.5 + 1e-9)).all()
    assert part.get_gt_labels().tolist() == LABELS[kept].tolist()
    assert list(part.CLASSES) == list("0123456789")


def test_samples_keep_who_they_are():
    part, whole = DataSubset(DIGITS, per_class=0.1), DATASETS.build(DIGITS)
    for place in (0, 5, len(part) - 1, -1):
        sample = part[place]["data_samples"]
        original = whole[sample.sample_idx]
        assert (part[place]["inputs"] == original["inputs"]).all()
        assert sample.gt_label == original["data_samples"].gt_label
        assert part.get_cat_ids(place) == [int(sample.gt_label)]
        assert "clean_label" not in sample
    with pytest.raises(IndexError):
        part[len(part)]


@pytest.mark.parametrize("rule", ["per_class", "classes"])
def test_small_shares_are_in_larger_ones(rule):
    parts = [set(members(DataSubset(DIGITS, **{rule: share}))) for share in SHARES]
    for small, large in itertools.pairwise(parts):
        assert small < large
    assert parts[-1] == set(range(901))


@pytest.mark.parametrize("rule", ["per_class", "classes"])
def test_the_seed_is_all_that_matters(rule):
    np.random.seed(1)
    first = members(DataSubset(DIGITS, **{rule: 0.3}, seed=4))
    np.random.seed(2)
    assert members(DataSubset(Digits(), **{rule: 0.3}, seed=4)) == first
    assert members(DataSubset(DIGITS, **{rule: 0.3}, seed=5)) != first
    assert members(DataSubset(DIGITS, **{rule: 0.3})) == members(
        DataSubset(DIGITS, **{rule: 0.3}, seed=0)
    )


@pytest.mark.parametrize("share", SHARES)
def test_share_of_the_classes(share):
    part = DataSubset(DIGITS, classes=share)
    labels = set(part.get_gt_labels().tolist())
    assert len(labels) == 10 * share
    assert members(part) == np.flatnonzero(np.isin(LABELS, list(labels))).tolist()


def test_named_classes():
    part = DataSubset(DIGITS, classes=[7, 2])
    assert members(part) == np.flatnonzero((LABELS == 2) | (LABELS == 7)).tolist()
    assert part.metainfo["data_subset"]["classes"] == [7, 2]


def test_noise_and_choice_know_nothing_of_each_other():
    """Under one seed, else a tenth of the data could be all noise."""
    assert (draw(0, WHICH_CHANGE, 5) != draw(0, WHICH_STAY, 5)).all()
    noisy = NoisyLabelDataset(DIGITS, kind="symmetric", rate=0.4)
    part = DataSubset(noisy, per_class=0.5)
    infos = [part.get_data_info(i) for i in range(len(part))]
    wrong = np.mean([info["gt_label"] != info["clean_label"] for info in infos])
    assert wrong == pytest.approx(0.4, abs=0.06)


def test_around_noise_and_inside_it():
    noise = dict(kind="symmetric", rate=0.4)
    whole = NoisyLabelDataset(DIGITS, **noise)
    outside = DataSubset(whole, per_class=0.2)
    # Every sample has the label that it has in the whole; classes are the noisy ones.
    assert (outside.get_gt_labels() == whole.get_gt_labels()[members(outside)]).all()
    sizes = np.bincount(whole.get_gt_labels())
    expected = np.floor(0.2 * sizes + 0.5 + 1e-9)
    assert (np.bincount(outside.get_gt_labels()) == expected).all()
    assert outside.metainfo["label_noise"] == whole.metainfo["label_noise"]
    sample = outside[0]["data_samples"]
    assert sample.clean_label == LABELS[sample.sample_idx]
    assert sample.gt_label == whole.get_gt_labels()[sample.sample_idx]

    part = DataSubset(DIGITS, per_class=0.2)
    inside = NoisyLabelDataset(part, **noise)
    assert members(inside) == members(part)
    assert (inside.get_clean_labels() == LABELS[members(part)]).all()
    assert inside.metainfo["label_noise"]["samples"] == len(part)
    assert inside.metainfo["data_subset"] == part.metainfo["data_subset"]
    sample = inside[3]["data_samples"]
    assert sample.clean_label == LABELS[sample.sample_idx]
    assert sample.gt_label == inside.get_gt_labels()[3]


def test_nested_parts():
    inner = DataSubset(DIGITS, classes=[1, 2, 3])
    outer = DataSubset(inner, per_class=0.5)
    assert set(members(outer)) < set(members(inner))
    description = outer.metainfo["data_subset"]
    assert description["within"] == inner.metainfo["data_subset"]
    assert description["samples"] == len(outer)
    assert description["sha256"] != inner.metainfo["data_subset"]["sha256"]


def scores_of(tmp_path, **changes):
    """A file of scores, in another order than the data."""
    index = np.random.RandomState(0).permutation(901)
    entropy = np.random.RandomState(1).rand(901)
    scores = dict(
        index=index, label=LABELS[index], clean_label=LABELS[index], entropy=entropy[index]
    )
    scores |= dict(tld=-entropy[index])
    scores = {name: value for name, value in (scores | changes).items() if value is not None}
    np.savez(tmp_path / "scores.npz", **scores)
    return str(tmp_path / "scores.npz"), entropy


def test_by_scores(tmp_path):
    file, entropy = scores_of(tmp_path)
    order = np.argsort(entropy)
    for low, high in [(0, 0.5), (0.5, 1), (0.25, 0.75), (0, 1), (0.9, 1.0)]:
        part = DataSubset(DIGITS, scores=file, by="entropy", quantiles=[low, high])
        expected = order[int(low * 901 + 0.5) : int(high * 901 + 0.5)]
        assert members(part) == sorted(expected)
    opposite = DataSubset(DIGITS, scores=file, by="tld", quantiles=(0.5, 1))
    lower = DataSubset(DIGITS, scores=file, by="entropy", quantiles=(0, 0.5))
    assert len(set(members(opposite)) & set(members(lower))) >= 450
    assert opposite.metainfo["data_subset"]["by"] == "tld"


def test_scores_find_their_samples_through_other_wrappers(tmp_path):
    file, entropy = scores_of(tmp_path)
    settings = dict(scores=file, by="entropy", quantiles=(0, 0.5))
    plain = set(members(DataSubset(DIGITS, **settings)))
    noisy = NoisyLabelDataset(DIGITS, kind="symmetric", rate=0.4)
    assert set(members(DataSubset(noisy, **settings))) == plain
    half = DataSubset(DIGITS, classes=[0, 1, 2, 3, 4])
    kept = members(half)
    expected = sorted(kept, key=lambda i: entropy[i])[: int(len(kept) / 2 + 0.5)]
    assert members(DataSubset(half, **settings)) == sorted(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(entropy=None), "has no entropy; make it with tools/score_samples.py"),
        (dict(index=np.arange(901) // 2), "index must name each sample once"),
        (dict(entropy=np.ones(900)), "index must name each sample once"),
        (dict(index=np.arange(901) + 1), "has no scores of 1 samples, such as number 0"),
        (dict(index=np.arange(901)), "the labels of .* are not the data set's"),
        (dict(entropy=np.full(901, np.nan)), "entropy must be finite numbers"),
    ],
)
def test_wrong_score_files(tmp_path, changes, message):
    file, _ = scores_of(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        DataSubset(DIGITS, scores=file, by="entropy", quantiles=(0, 0.5))


SCORES = dict(scores="none.npz", by="entropy", quantiles=(0, 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(), "say exactly one of per_class, classes, scores, got none; nest two"),
        (dict(per_class=0.1, classes=0.1), "got per_class and classes; nest two DataSubset"),
        (dict(per_class=1.5), r"per_class must be a number in \[0, 1\], got 1.5"),
        (dict(per_class=True), "per_class must be a number"),
        (dict(per_class=0), "per_class=0 keeps no sample"),
        (dict(per_class=0.001), "per_class=0.001 keeps no sample"),
        (dict(classes=-1), "classes must be a number"),
        (dict(classes=[]), r"classes=\[\] keeps no sample"),
        (dict(classes=[0, 10]), r"different integers from 0 to 9, got \[0, 10\]"),
        (dict(classes=[1, 1]), r"different integers from 0 to 9, got \[1, 1\]"),
        (dict(classes=["1"]), "different integers from 0 to 9"),
        (dict(classes=[1], seed=3), "nothing is drawn here; leave out seed"),
        (dict(SCORES, seed=3), "nothing is drawn here; leave out seed"),
        (dict(per_class=0.1, seed=-1), "seed must be an integer from 0 on"),
        (dict(per_class=0.1, by="tld"), "by and quantiles go with scores"),
        (dict(SCORES, by="loss"), r"by must be one of \['entropy', 'tld'\], got 'loss'"),
        (dict(SCORES, quantiles=None), r"quantiles must be \(low, high\), got None"),
        (dict(SCORES, quantiles=(0.5, 0.5)), "with low < high"),
        (dict(SCORES, quantiles=(0, 2)), "a quantile must be a number"),
        (dict(SCORES, scores="scores.txt"), "must be a file of type .npz"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DataSubset(DIGITS, **settings)


def test_missing_score_file():
    with pytest.raises(FileNotFoundError, match=r"none.npz does not exist"):
        DataSubset(DIGITS, **SCORES)

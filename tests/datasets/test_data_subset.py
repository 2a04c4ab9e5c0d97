import numpy as np
import pytest
import torch

from mmkd_logit.datasets import DataSubset, Digits, NoisyLabelDataset
from mmkd_logit.datasets.draws import WHICH_CHANGE, WHICH_STAY, draw
from mmkd_logit.datasets.subset import sample_difficulty

DIGITS = dict(type="mmkd_logit.Digits", pipeline=[dict(type="mmpretrain.PackInputs")])
LABELS = np.array([item["gt_label"] for item in Digits()])
SIZES = np.bincount(LABELS)
SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 1]


def members(dataset):
    return [dataset.get_data_info(i)["sample_idx"] for i in range(len(dataset))]


def test_share_of_each_class_and_small_shares_are_in_larger_ones():
    before = set()
    for share in SHARES:
        part = DataSubset(DIGITS, per_class=share)
        kept = members(part)
        assert kept == sorted(set(kept))
        assert (np.bincount(LABELS[kept]) == np.floor(share * SIZES + 0.5 + 1e-9)).all()
        assert part.get_gt_labels().tolist() == LABELS[kept].tolist()
        assert list(part.CLASSES) == list("0123456789")
        assert before < set(kept)
        before = set(kept)
    assert len(before) == 901


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


def test_share_of_the_classes_and_small_shares_are_in_larger_ones():
    before = set()
    for share in SHARES:
        part = DataSubset(DIGITS, classes=share)
        labels = set(part.get_gt_labels().tolist())
        assert len(labels) == 10 * share
        assert members(part) == np.flatnonzero(np.isin(LABELS, list(labels))).tolist()
        assert before < labels
        before = labels


def test_named_classes():
    part = DataSubset(DIGITS, classes=[7, 2])
    assert members(part) == np.flatnonzero((LABELS == 2) | (LABELS == 7)).tolist()
    assert part.description["data_subset"]["classes"] == [7, 2]


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
    assert outside.description["label_noise"] == whole.description["label_noise"]
    sample = outside[0]["data_samples"]
    assert sample.clean_label == LABELS[sample.sample_idx]
    assert sample.gt_label == whole.get_gt_labels()[sample.sample_idx]

    part = DataSubset(DIGITS, per_class=0.2)
    inside = NoisyLabelDataset(part, **noise)
    assert members(inside) == members(part)
    assert (inside.get_clean_labels() == LABELS[members(part)]).all()
    assert inside.description["label_noise"]["samples"] == len(part)
    assert inside.description["data_subset"] == part.description["data_subset"]
    sample = inside[3]["data_samples"]
    assert sample.clean_label == LABELS[sample.sample_idx]
    assert sample.gt_label == inside.get_gt_labels()[3]


def test_nested_parts():
    inner = DataSubset(DIGITS, classes=[1, 2, 3])
    outer = DataSubset(inner, per_class=0.5)
    assert set(members(outer)) < set(members(inner))
    description = outer.description["data_subset"]
    assert description["within"] == inner.description["data_subset"]
    assert description["samples"] == len(outer)
    assert description["sha256"] != inner.description["data_subset"]["sha256"]


def old_scores(logits, labels):
    """What tools/score_samples.py of version 0.1.0 computed, whose choices still hold."""
    logits, column = torch.from_numpy(logits).double(), torch.from_numpy(labels)[:, None]
    others = logits.scatter(1, column, -torch.inf).amax(1)
    return dict(
        entropy=torch.special.entr(logits.softmax(1)).sum(1).numpy(),
        tld=(logits.gather(1, column)[:, 0] - others).numpy(),
    )


def logits_of(tmp_path, **changes):
    """Write an export in another order than the data; return its name and the old scores."""
    index = np.random.RandomState(0).permutation(901)
    logits = (4 * np.random.RandomState(1).randn(901, 10)).astype(np.float32)
    arrays = dict(index=index, label=LABELS[index], clean_label=LABELS[index], logits=logits[index])
    arrays |= dict(prelogits=np.zeros((901, 3), np.float32), identity=np.array("{}"))
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(tmp_path / "train.npz", **arrays)
    return str(tmp_path / "train.npz"), old_scores(logits, LABELS)


def test_difficulty_by_hand():
    logits = np.array([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [-np.inf, 3.0, 3.0]])
    p = np.exp([2.0, 0.5, -1.0]) / np.exp([2.0, 0.5, -1.0]).sum()
    entropy = sample_difficulty(logits, np.array([0, 1, 1]), "entropy")
    assert entropy == pytest.approx([-(p * np.log(p)).sum(), np.log(3), np.log(2)])
    assert sample_difficulty(logits, np.array([0, 1, 1]), "tld").tolist() == [1.5, 0.0, 0.0]
    # The label that is not the largest has a negative difference.
    assert sample_difficulty(logits[:1], np.array([2]), "tld").tolist() == [-3.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_difficulty_is_that_of_the_old_scores(dtype):
    """To the bit, over more rows than are computed at a time, and very sure ones among them."""
    random = np.random.RandomState(2)
    logits = (random.randn(10_000, 7) * random.choice([1e-3, 1, 50, 300], (10_000, 1))).astype(
        dtype
    )
    labels = random.randint(7, size=10_000)
    for by, expected in old_scores(logits.astype(np.float64), labels).items():
        assert (sample_difficulty(logits, labels, by) == expected).all()


@pytest.mark.parametrize("by", ["entropy", "tld"])
def test_by_logits(tmp_path, by):
    file, scores = logits_of(tmp_path)
    order = np.argsort(scores[by])
    for low, high in [(0, 0.5), (0.5, 1), (0.25, 0.75)]:
        part = DataSubset(DIGITS, scores=file, by=by, quantiles=[low, high])
        expected = order[int(low * 901 + 0.5) : int(high * 901 + 0.5)]
        assert members(part) == sorted(expected)
        assert part.description["data_subset"]["by"] == by


def test_logits_find_their_samples_through_other_wrappers(tmp_path):
    file, scores = logits_of(tmp_path)
    settings = dict(scores=file, by="entropy", quantiles=(0, 0.5))
    plain = set(members(DataSubset(DIGITS, **settings)))
    noisy = NoisyLabelDataset(DIGITS, kind="symmetric", rate=0.4)
    assert set(members(DataSubset(noisy, **settings))) == plain
    half = DataSubset(DIGITS, classes=[0, 1, 2, 3, 4])
    kept = members(half)
    expected = sorted(kept, key=lambda i: scores["entropy"][i])[: int(len(kept) / 2 + 0.5)]
    assert members(DataSubset(half, **settings)) == sorted(expected)


def test_the_difference_is_to_the_label_that_the_teacher_saw(tmp_path):
    wrong = (LABELS + 1) % 10
    file, _ = logits_of(tmp_path, index=np.arange(901), label=wrong, clean_label=LABELS)
    with np.load(file) as arrays:
        expected = np.argsort(old_scores(arrays["logits"], wrong)["tld"])[:90]
    part = DataSubset(DIGITS, scores=file, by="tld", quantiles=(0, 0.1))
    assert members(part) == sorted(expected)


EXPORT = "export it with tools/dump_logits.py CONFIG CHECKPOINT --splits train"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(logits=None), f"train.npz has no logits; {EXPORT}"),
        (dict(index=None, label=None, clean_label=None, logits=None), "no index, label, clean_la"),
        (dict(index=np.arange(901) // 2), "index must name each sample once"),
        (
            dict(logits=np.ones((900, 10))),
            r"floats \(N, K\), .* label int64 \(901,\), .*; export it",
        ),
        (dict(logits=np.ones(901)), r"got .* logits float64 \(901,\)"),
        (dict(logits=np.ones((901, 9))), "label N integers from 0 to K - 1"),
        (dict(label=np.full(901, -1)), "label N integers from 0 to K - 1"),
        (
            dict(index=np.arange(901) + 1),
            "901 samples and lacks 1 of the data set's 901, such as n",
        ),
        (
            {name: np.arange(900) % 10 for name in ("label", "clean_label")}
            | dict(index=np.arange(900), logits=np.ones((900, 10))),
            f"has 900 samples and lacks 1 of the data set's 901, such as number 900; {EXPORT}",
        ),
        (dict(index=np.arange(901)), "the labels of .* are not the data set's"),
        (dict(logits=np.full((901, 10), np.nan)), "entropy must be finite numbers; take a check"),
    ],
)
def test_wrong_exports(tmp_path, changes, message):
    file, _ = logits_of(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        DataSubset(DIGITS, scores=file, by="entropy", quantiles=(0, 0.5))


SCORES = dict(scores="none.npz", by="entropy", quantiles=(0, 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(), "say exactly one of per_class, classes, scores, got none; nest two"),
        (dict(per_class=0.1, classes=0.1), "got per_class and classes; nest two DataSubset"),
        (dict(per_class=True), "per_class must be a number"),
        (dict(per_class=0.001), "per_class=0.001 keeps no sample"),
        (dict(classes=-1), "classes must be a number"),
        (dict(classes=[]), r"classes=\[\] keeps no sample"),
        (dict(classes=[0, 10]), r"different integers from 0 to 9, got \[0, 10\]"),
        (dict(classes=[1, 1]), r"different integers from 0 to 9, got \[1, 1\]"),
        (dict(classes=["1"]), "different integers from 0 to 9"),
        (dict(SCORES, seed=3), "nothing is drawn here; leave out seed"),
        (dict(SCORES, by="loss"), "by must be one of 'entropy', 'tld', got 'loss'"),
        (dict(SCORES, quantiles=None), r"quantiles must be \(low, high\), got None"),
        (dict(SCORES, quantiles=(0.5, 0.5)), "with low < high"),
        (dict(SCORES, quantiles=(0, 2)), "a quantile must be a number"),
        (dict(SCORES, scores="scores.txt"), "must be a file of type .npz"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DataSubset(DIGITS, **settings)


def test_missing_export():
    with pytest.raises(FileNotFoundError, match=f"none.npz does not exist; {EXPORT}"):
        DataSubset(DIGITS, **SCORES)

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from mmkd_logit.datasets import LabelNoise
from mmkd_logit.datasets.label_noise import CIFAR100_GROUPS, KINDS, hash_labels

K = 10
SIZES = [20, 31, 7, 50, 1, 12, 100, 45, 3, 231]  # 500 in all
BALANCED = np.repeat(np.arange(K), 5000)
HASHES = dict(
    symmetric="8d5f43e25526d3cf",
    uniform="c93e33aebf33b395",
    pair="7c6afc02097d41a4",
    transition="6de11950e11e2224",
)
RATES = [0, 0.1, 0.25, 0.4, 0.6, 0.8, 1]


def shuffled(sizes=SIZES):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    np.random.RandomState(0).shuffle(labels)
    return labels


def half_up(number):
    return int(np.floor(round(number, 9) + 0.5))


def matrix_of(noisy, clean, classes=K):
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (clean, noisy), 1)
    return counts


@pytest.mark.parametrize("rate", RATES)
def test_exact_rate_overall_and_as_nearly_as_possible_in_each_class(rate):
    clean = shuffled()
    for kind in ("symmetric", "pair"):
        noisy = LabelNoise(kind, rate=rate).apply(clean, K)
        assert (noisy != clean).sum() == half_up(500 * rate)
        in_each = np.bincount(clean[noisy != clean], minlength=K)
        assert np.abs(in_each - rate * np.array(SIZES)).max() < 1
    noisy = LabelNoise("symmetric", rate=rate, per_class=False).apply(clean, K)
    assert (noisy != clean).sum() == half_up(500 * rate)
    if rate == 0.4:
        assert np.bincount(clean[noisy != clean], minlength=K).tolist() != in_each.tolist()
    assert clean.tolist() == shuffled().tolist()


@pytest.mark.parametrize(("size", "rate", "expected"), [(1, 0.4, 40), (1, 0.6, 60), (3, 0.1, 30)])
def test_exact_where_rounding_each_class_would_be_far_off(size, rate, expected):
    clean = np.tile(np.arange(100), size)
    noisy = LabelNoise("symmetric", rate=rate).apply(clean, 100)
    assert (noisy != clean).sum() == expected
    assert np.bincount(clean[noisy != clean]).max() == 1


def test_rates_that_binary_numbers_miss():
    """0.29 * 50 is below 14.5 in floating point, and 0.57 * 100 below 57."""
    for rate, size, expected in [(0.29, 50, 15), (0.57, 100, 57), (0.1, 5, 1), (0.3, 5, 2)]:
        clean = np.zeros(size, dtype=int)
        assert (LabelNoise("pair", rate=rate).apply(clean, 2) != clean).sum() == expected


def test_symmetric_goes_to_every_other_class_alike():
    noisy = LabelNoise("symmetric", rate=0.6).apply(BALANCED, K)
    counts = matrix_of(noisy, BALANCED)
    assert (np.diag(counts) == 2000).all()
    off = counts[~np.eye(K, dtype=bool)]
    assert off.sum() == 30_000
    assert chisquare(off).pvalue > 0.01


def test_uniform_draws_the_own_class_too():
    noisy = LabelNoise("uniform", rate=0.6).apply(BALANCED, K)
    counts = matrix_of(noisy, BALANCED)
    expected = np.full((K, K), 300.0) + 2000 * np.eye(K)
    assert chisquare(counts.ravel(), expected.ravel()).pvalue > 0.01
    realised = (noisy != BALANCED).mean()
    assert realised == pytest.approx(0.6 * 9 / 10, abs=0.01)
    # The two kinds are told apart by this test.
    symmetric = matrix_of(LabelNoise("symmetric", rate=0.6).apply(BALANCED, K), BALANCED)
    assert chisquare(symmetric.ravel(), expected.ravel()).pvalue < 1e-9


def test_pair_goes_to_the_next_class():
    clean = shuffled()
    noisy = LabelNoise("pair", rate=0.4).apply(clean, K)
    changed = noisy != clean
    assert (noisy[changed] == (clean[changed] + 1) % K).all()
    assert 0 in noisy[changed & (clean == K - 1)]


def test_superclass_stays_in_its_group():
    clean = np.repeat(np.arange(100), 10)
    noisy = LabelNoise("superclass", rate=0.4).apply(clean, 100)
    changed = noisy != clean
    assert (np.bincount(clean[changed]) == 4).all()
    group = {fine: number for number, fines in enumerate(CIFAR100_GROUPS) for fine in fines}
    assert all(group[a] == group[b] for a, b in zip(clean.tolist(), noisy.tolist(), strict=True))
    # Five steps lead back, none before.
    labels = [np.arange(100)]
    for _ in range(5):
        labels.append(LabelNoise("superclass", rate=1).apply(labels[-1], 100))
    assert (labels[5] == labels[0]).all()
    assert all((step != labels[0]).all() for step in labels[1:5])


def test_groups_are_the_published_ones(cifar100_root):
    content = Path(cifar100_root, "cifar-100-python", "train").read_bytes()
    data = pickle.loads(content, encoding="latin1")
    pairs = sorted(set(zip(data["coarse_labels"], data["fine_labels"], strict=True)))
    ours = [(coarse, fine) for coarse, fines in enumerate(CIFAR100_GROUPS) for fine in fines]
    assert pairs == ours


def test_superclass_is_for_cifar100_alone():
    with pytest.raises(ValueError, match="'superclass' is CIFAR-100's; here are 10 classes"):
        LabelNoise("superclass", rate=0.1).apply(BALANCED, K)


def random_matrix(classes=K):
    matrix = np.random.RandomState(1).dirichlet(np.ones(classes), classes)
    matrix[2] = np.eye(classes)[5]  # certain
    return matrix


def test_transition_follows_its_matrix(tmp_path):
    matrix = random_matrix()
    noisy = LabelNoise("transition", matrix=matrix).apply(BALANCED, K)
    counts = matrix_of(noisy, BALANCED)
    assert (counts[2] == 5000 * np.eye(K)[5]).all()
    for row in {*range(K)} - {2}:
        assert chisquare(counts[row], 5000 * matrix[row]).pvalue > 1e-3
    with pytest.raises(FileNotFoundError, match=r"the file no.npy does not exist"):
        LabelNoise("transition", matrix="no.npy").apply(BALANCED, K)
    np.save(tmp_path / "matrix.npy", matrix)
    for same in (matrix.tolist(), str(tmp_path / "matrix.npy")):
        assert (LabelNoise("transition", matrix=same).apply(BALANCED, K) == noisy).all()


def broken(change):
    matrix = np.full((K, K), 0.1)
    change(matrix)
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(9), r"matrix must be 10 x 10, got shape \(9, 9\)"),
        (np.ones(10) / 10, r"matrix must be 10 x 10, got shape \(10,\)"),
        ([[1, 0], [1]], "matrix must be 10 x 10 numbers"),
        ("abc", "abc must be a file of type .npy"),
        (broken(lambda m: m.__setitem__((3, 0), -0.1)), "row 3 has a negative one or NaN"),
        (broken(lambda m: m.__setitem__((4, 0), np.nan)), "row 4 has a negative one or NaN"),
        (broken(lambda m: m.__setitem__((5, 0), np.inf)), "row 5 sums to inf"),
        (broken(lambda m: m.__setitem__((6, 0), 0.2)), "sum to 1; row 6 sums to 1.1"),
    ],
)
def test_wrong_matrices(matrix, message):
    with pytest.raises(ValueError, match=message):
        LabelNoise("transition", matrix=matrix).apply(BALANCED, K)


@pytest.mark.parametrize("kind", ["symmetric", "uniform", "pair"])
def test_the_seed_is_all_that_matters(kind):
    clean = shuffled()
    np.random.seed(1)
    first = LabelNoise(kind, rate=0.4, seed=3).apply(clean, K)
    np.random.seed(2)
    assert (LabelNoise(kind, rate=0.4, seed=3).apply(clean, K) == first).all()
    assert (LabelNoise(kind, rate=0.4, seed=4).apply(clean, K) != first).any()
    default = LabelNoise(kind, rate=0.4).apply(clean, K)
    assert (LabelNoise(kind, rate=0.4, seed=0).apply(clean, K) == default).all()


def test_labels_are_the_same_for_ever():
    """Other draws would change every result that was measured with these."""
    clean = np.arange(1000) % K
    hashes = {
        kind: hash_labels(LabelNoise(kind, rate=0.4, seed=7).apply(clean, K))[:16]
        for kind in ("symmetric", "uniform", "pair")
    }
    matrix = np.full((K, K), 0.1)
    noisy = LabelNoise("transition", matrix=matrix, seed=7).apply(clean, K)
    assert {**hashes, "transition": hash_labels(noisy)[:16]} == HASHES


@pytest.mark.parametrize("kind", ["symmetric", "uniform", "pair"])
def test_more_noise_contains_less(kind):
    clean = shuffled()
    labels = [LabelNoise(kind, rate=rate).apply(clean, K) for rate in RATES]
    for less, more in itertools.pairwise(labels):
        changed = less != clean
        assert (more[changed] == less[changed]).all()


def test_draws_of_a_sample_do_not_depend_on_the_others():
    """Overall and at rate 1 all change, so only the draws of each sample are seen."""
    noise = LabelNoise("symmetric", rate=1, per_class=False)
    clean = shuffled()
    assert (noise.apply(clean[:100], K) == noise.apply(clean, K)[:100]).all()
    single = noise.apply([3], K)
    assert single == noise.apply(np.r_[3, clean], K)[0]


@pytest.mark.parametrize("rate", [-0.1, 1.1, 40, True, float("nan"), float("inf"), "0.4", [0.4]])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match=r"rate must be a number in \[0, 1\], got "):
        LabelNoise("symmetric", rate=rate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kind="symetric", rate=0.1), r"'symetric'; did you mean symmetric\?"),
        (dict(kind=None, rate=0.1), r"kind must be one of .*'file'\], got None"),
        (dict(kind="transition"), "kind 'transition' needs matrix"),
        (dict(kind="file"), "kind 'file' needs file"),
        (
            dict(kind="transition", matrix=np.eye(3), rate=0.1, per_class=True),
            "kind 'transition' takes matrix, seed; leave out rate, per_class",
        ),
        (dict(kind="file", file="a.npy", seed=1), "takes file, key, clean_key; leave out seed"),
        (dict(kind="pair", rate=0.1, seed=-1), "seed must be an integer from 0 on, got -1"),
        (dict(kind="pair", rate=0.1, seed=1.0), "seed must be an integer from 0 on, got 1.0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LabelNoise(**settings)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], "the data set's labels must be from 0 to 9, got 10"),
        ([0, -1], "from 0 to 9, got -1"),
        ([0.5, 1], "must be integers, got float64"),
        ([np.nan, 1], "must be integers, got float64"),
        ([[0, 1], [1, 0]], r"one integer a sample, got shape \(2, 2\)"),
        (["cat", "dog"], "must be integers, got <U3"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        LabelNoise("pair", rate=0.1).apply(labels, K)


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_has_no_other(kind):
    needed = dict(transition=dict(matrix=[[1.0]]), file=dict(file="labels.npy"))
    with pytest.raises(ValueError, match="needs 2 classes or more, got 1"):
        LabelNoise(kind, **needed.get(kind, dict(rate=0.1))).apply([0, 0], 1)


def test_description_is_plain_and_true():
    clean = shuffled()
    noise = LabelNoise("symmetric", rate=np.float32(0.5), seed=np.int64(3))
    noisy = noise.apply(clean, K)
    description = noise.describe(clean, noisy)
    assert description == dict(
        kind="symmetric",
        rate=0.5,
        realised_rate=(noisy != clean).mean(),
        seed=3,
        per_class=True,
        file=None,
        key=None,
        samples=500,
        sha256=hash_labels(noisy.astype(np.uint8)),
    )
    plain = {str, float, int, bool, type(None)}
    assert {type(value) for value in description.values()} <= plain


def test_every_kind_is_described():
    for kind in KINDS:
        assert f"``{kind!r}``: " in LabelNoise.__doc__, f"describe {kind} in LabelNoise's docstring"

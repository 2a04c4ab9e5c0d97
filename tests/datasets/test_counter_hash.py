"""The hash that augmentation is drawn by."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from mmkd_logit.datasets.draws import below, counter_bits, unit

MASK = 2**64 - 1
PINNED = [0x2130748AAAC80268, 0xEDBE0C79CAE5AD5A, 0x2E53EE4EBA99909C]


def plain(words, count):
    """SplitMix64's finaliser in Python's integers."""

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    step, state = 0x9E3779B97F4A7C15, 0
    for word in words:
        state = mix((state + step + word) & MASK)
    return [mix((state + (k + 1) * step) & MASK) for k in range(count)]


def bits(seed=0, epoch=0, samples=50_000, count=1):
    words = np.stack([np.full(samples, seed), np.full(samples, epoch), np.arange(samples)])
    return counter_bits(words, count)


def test_published_values_of_splitmix64():
    """Its first outputs from state 0, as in the tests of many implementations."""
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert counter_bits(np.zeros((0, 1), dtype=np.int64), 3)[:, 0].tolist() == known


def test_the_definition_is_frozen():
    """Change these numbers, and no run can be repeated."""
    words = np.array([[0, 3, 2**32 - 1], [0, 199, 7], [0, 49_999, 2**40]])
    found = counter_bits(words, 2)
    assert found.T.tolist() == [plain(column, 2) for column in words.T.tolist()]
    assert found[0].tolist() == PINNED


@pytest.mark.parametrize("number", [1, 2, 3, 9, 162, 1000, 2**31])
def test_integers_are_in_range_and_uniform(number):
    drawn = below(bits(count=2), number)
    assert drawn.min() >= 0
    assert drawn.max() < number
    if 1 < number <= 1000:
        assert chisquare(np.bincount(drawn.ravel(), minlength=number)).pvalue > 1e-3
    ends = np.array([0, MASK], dtype=np.uint64)
    assert below(ends, number).tolist() == [0, number - 1]


def test_unit_numbers():
    drawn = unit(bits(count=3))
    assert chisquare(np.histogram(drawn, 100, (0, 1))[0]).pvalue > 1e-3
    assert unit(np.array([0, MASK], dtype=np.uint64)).tolist() == [0, 1 - 2**-53]


OTHERS = dict(
    epoch=lambda: (bits(), bits(epoch=1)),
    far_epoch=lambda: (bits(), bits(epoch=128)),
    seed=lambda: (bits(), bits(seed=1)),
    seed_for_epoch=lambda: (bits(seed=1), bits(epoch=1)),
    sample=lambda: (bits()[:, :-1], bits()[:, 1:]),
    draw=lambda: tuple(bits(count=2)[:, None]),
)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("number", [2, 9])
def test_independence(other, number):
    first, second = (below(each.ravel(), number) for each in OTHERS[other]())
    table = np.zeros((number, number))
    np.add.at(table, (first, second), 1)
    assert chi2_contingency(table, correction=False).pvalue > 1e-3

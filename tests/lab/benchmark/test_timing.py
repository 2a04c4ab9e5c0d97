"""What is said of times."""

import itertools
import statistics
import time

import pytest

from mmkd_logit.lab.benchmark.speed import interleave, ratio, timed


def test_functions_take_turns_and_get_as_many():
    calls = []
    clock = itertools.count()

    def function(name):
        def call():
            calls.append(name)
            return next(clock)

        return call

    times = interleave([function(name) for name in "abc"], seconds=0, least=4)
    assert "".join(calls) == "abc" * 4
    assert times == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_time_decides_beyond_the_least():
    def slow():
        time.sleep(0.01)
        return 0.01

    (times,) = interleave([slow], seconds=0.15, least=2)
    assert 3 <= len(times) <= 15


def test_timed_is_of_one_call():
    one = timed(lambda: time.sleep(0.02), "cpu")
    many = timed(lambda: time.sleep(0.02), "cpu", calls=3)
    assert 0.02 <= one < 0.2
    assert 0.02 <= many < 0.055


def test_a_ratio_follows_from_the_times():
    times, reference = [0.5, 0.1, 0.2, 0.4, 0.3], [0.6, 0.3, 0.2, 0.8, 1.2]
    compared = ratio(times, reference)
    assert compared["ratio"] == pytest.approx(0.6 / 0.3)
    neighbours = statistics.quantiles([1.2, 3, 1, 2, 4], n=4)
    assert compared["quartiles"] == pytest.approx([neighbours[0], neighbours[2]])
    with pytest.raises(ValueError, match="shorter"):
        ratio(times, reference[:-1])

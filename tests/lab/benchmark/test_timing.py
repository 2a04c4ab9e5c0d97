"""What is said of times."""

import itertools
import multiprocessing
import statistics
import time

import pytest

from mmkd_logit.lab.benchmark import speed
from mmkd_logit.lab.benchmark.speed import cpu_seconds, interleave, ratio, timed


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


def test_the_time_left_is_said(monkeypatch, capsys):
    monkeypatch.setattr(speed, "_SAY_EVERY", 0.0)
    interleave([lambda: time.sleep(0.01)], seconds=0, least=3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 rounds measured, about 0 s left")
    assert len(lines) == 2


def test_timed_is_of_one_call():
    one = timed(lambda: time.sleep(0.02), "cpu")
    many = timed(lambda: time.sleep(0.02), "cpu", calls=3)
    assert 0.02 <= one.wall < 0.2
    assert 0.02 <= many.wall < 0.055
    assert max(one.cpu, many.cpu) < 0.02  # asleep


def test_the_time_of_data_workers_counts():
    worker = multiprocessing.get_context("spawn").Process(target=sum, args=(range(10**12),))
    own, before, end = time.process_time(), cpu_seconds(), time.monotonic() + 60
    worker.start()
    while cpu_seconds() - before < 1 and time.monotonic() < end:
        time.sleep(0.05)
    worker.kill()
    worker.join()
    assert time.monotonic() < end
    assert time.process_time() - own < 0.7


def test_a_ratio_follows_from_the_times():
    times, reference = [0.6, 0.3, 0.2, 0.8, 1.2], [0.5, 0.1, 0.2, 0.4, 0.3]
    compared = ratio(times, reference)
    assert compared["ratio"] == pytest.approx(0.6 / 0.3)
    neighbours = statistics.quantiles([1.2, 3, 1, 2, 4], n=4)
    assert compared["quartiles"] == pytest.approx([neighbours[0], neighbours[2]])
    with pytest.raises(ValueError, match="shorter"):
        ratio(times, reference[:-1])

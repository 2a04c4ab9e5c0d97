import math
import types

import numpy as np
import pytest
from scipy import stats

from mmkd_logit.experiments.exhibit import Run
from mmkd_logit.experiments.table import paired_difference, render


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_against_scipy(n):
    generator = np.random.default_rng(n)
    first = generator.normal(70, 3, n)
    second = first - generator.normal(0.5, 1, n)
    mean, low, high, p = paired_difference(first.tolist(), second.tolist())
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert mean == pytest.approx((first - second).mean())
    assert p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    flipped = paired_difference(second, first)
    assert flipped == pytest.approx((-mean, -high, -low, p))


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        noise = generator.normal(2, 1, 4)
        _, low, high, p = paired_difference(noise, np.zeros(4))
        covered += low <= 2 <= high
        assert (p < 0.05) == (not low <= 0 <= high)
    assert 930 <= covered <= 970  # 95 %, by more than 2.8 standard errors


def test_equal_differences():
    assert paired_difference([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0, 1)
    assert paired_difference([2.0, 3.0], [1.0, 2.0]) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("first", "second"), [([1], [1]), ([], []), ([1, 2], [1]), ([1, 2, 3], [1, 2])]
)
def test_too_few_seeds(first, second):
    with pytest.raises(ValueError, match="need the same 2 or more seeds, got"):
        paired_difference(first, second)


EXHIBIT = types.SimpleNamespace(
    title="The title",
    labels=dict(alone="Student alone", kd="Distilled"),
    comparisons=[("kd", "alone")],
    options=(),
)


def row(top1, **kwargs):
    defaults = dict(
        test={"accuracy/top1": top1},
        commit="0123456789abcdef",
        dirty=False,
        epochs=30,
        device="CPU (x86_64, 2 cores)",
        versions=dict(torch="2.15.0"),
    )
    return {**defaults, **kwargs}


def found(alone, kd, **kwargs):
    return {
        Run(name, f"{name}.py", (), seed): None if value is None else row(value, **kwargs)
        for name, values in (("alone", alone), ("kd", kd))
        for seed, value in enumerate(values)
    }


def test_a_table():
    lines = render(EXHIBIT, found([90.0, 91.0, 92.0], [92.0, 92.0, 94.0])).splitlines()
    assert lines == [
        "### The title",
        "",
        "| run | test top-1 (%) | n |",
        "|---|---|---|",
        "| Student alone | 91.00 ± 1.00 | 3 |",
        "| Distilled | 92.67 ± 1.15 | 3 |",
        "",
        "Distilled - Student alone: +1.67 points, 95 % interval [+0.23, +3.10], p = 0.038 (paired "
        "t-test over 3 seeds).",
        "",
        "Weights after the last epoch, nothing selected on the test data; mean ± sample standard "
        "deviation over n seeds; 30 epochs; CPU (x86_64, 2 cores); torch 2.15.0; commit "
        "0123456789ab.",
    ]


def test_one_seed_has_no_interval():
    text = render(EXHIBIT, found([90.0], [91.5]))
    assert "| Student alone | 90.00 | 1 |" in text
    assert "+1.50 points, one seed; --seeds 5 gives an interval." in text
    assert "±" not in text.split("Weights after")[0]


def test_failures_are_shown_and_pairs_kept_together():
    text = render(EXHIBIT, found([90.0, None, 92.0], [None, 95.0, 93.0]))
    assert "| Student alone | 91.00 ± 1.41 | 2 (1 failed) |" in text
    assert "| Distilled | 94.00 ± 1.41 | 2 (1 failed) |" in text
    assert "Distilled - Student alone: +1.00 points, one seed" in text  # seed 2 only
    text = render(EXHIBIT, found([90.0, None], [None, 95.0]))
    assert "Distilled - Student alone: no seed finished both." in text
    text = render(EXHIBIT, found([None], [None]))
    assert "| Distilled | - | 0 (1 failed) |" in text
    assert text.endswith("Nothing finished.")


def test_mixed_rows_say_so():
    rows = found([90.0], [91.0])
    (first, second) = rows
    rows[second].update(dirty=True, device="NVIDIA H100", epochs=3, commit=None)
    text = render(EXHIBIT, rows)
    assert text.endswith(
        "3, 30 epochs; CPU (x86_64, 2 cores), NVIDIA H100; torch 2.15.0; commit 0123456789ab, "
        "unknown+."
    )
    rows[first].update(dirty=True)
    assert "0123456789ab+" in render(EXHIBIT, rows)
    reduced = types.SimpleNamespace(**{**vars(EXHIBIT), "options": ("train_cfg.max_epochs=1",)})
    assert render(reduced, rows).endswith(" Reduced: train_cfg.max_epochs=1.")


def test_other_metrics():
    rows = found([90.0], [91.0], test={"single-label/f1-score": 3.0})
    with pytest.raises(ValueError, match=r"alone.py measures \['single-label/f1-score'\] and not"):
        render(EXHIBIT, rows)


def test_diverged_runs_are_shown():
    assert "nan" in render(EXHIBIT, found([math.nan, 1.0], [1.0, 2.0]))

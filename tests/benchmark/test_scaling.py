"""Several processes."""

import statistics

import pytest

from mmkd_logit.lab.benchmark.speed import process_counts, render_scaling, scaling_rows

KD = "configs/kd/wrn10-1_wrn10-1-thin_mse_digits.py"
CONFIG = dict(path=KD, synthetic=64)


@pytest.mark.usefixtures("project")
def test_two_processes_share_the_batch():
    rows = scaling_rows(CONFIG, "plain", 0, 16, "total", 0.05, counts=(1, 2), sweeps=1)
    assert [row["processes"] for row in rows] == [1, 2]
    assert [row["batch_size"] for row in rows] == [16, 8]
    for row in rows:
        assert len(row["times"]) >= 5
        assert row["per_second"] == pytest.approx(16 / statistics.median(row["times"]))
    alone, both = (row["per_second"] for row in rows)
    assert rows[0]["efficiency"] == 1
    assert rows[1]["efficiency"] == pytest.approx(both / alone / 2)
    assert "| 2 | 8 |" in render_scaling(rows)


@pytest.mark.usefixtures("project")
def test_a_failing_process_is_named():
    with pytest.raises(OSError, match=r"with 1 processes failed.*(?s:.)*fewer than 65 images"):
        scaling_rows(CONFIG, "plain", 0, 65, "process", 0, counts=(1,), sweeps=1)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="must be one of"):
        scaling_rows(CONFIG, "plain", 0, 16, "each", 0)
    with pytest.raises(ValueError, match="15 cannot be divided among 2"):
        scaling_rows(CONFIG, "plain", 0, 15, "total", 0, counts=(1, 2))
    assert process_counts()[0] == 1

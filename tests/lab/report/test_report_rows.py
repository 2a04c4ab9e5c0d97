import json

import pytest
from report_records import record_of, row_of, run_of

from mmkd_logit.lab.report.page import ResultsRows
from mmkd_logit.lab.report.page_figures import Files


@pytest.fixture
def rows(tmp_path):
    """Writes lines and reads them."""

    def read(*lines):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "runs.jsonl").write_text("\n".join(texts))
        return ResultsRows(tmp_path)

    return read


def test_each_row_has_its_line(rows):
    first, second = row_of("a", 0, 70.0), row_of("a", 1, float("nan"))
    found = rows(first, second, first, "")
    assert found.problems == []
    assert found.place(dict(reversed(second.items()))) == "runs.jsonl, line 2"
    assert found.place(first) == "runs.jsonl, line 3"  # the newest
    assert found.place(dict(first, seed=7)) == "not in runs.jsonl"
    assert found.place(None) is None


def test_no_file(tmp_path):
    found = ResultsRows(tmp_path)
    assert found.place(row_of("a", 0, 1.0)) is None
    assert found.others([]) == []


def test_broken_lines_are_told(rows):
    found = rows(row_of("a", 0, 1.0), "{", "", "[" * 100_000, "[1]", '{"seed": 1}', '{"se')
    assert found.problems == [
        f"runs.jsonl: line {line} is not a results row; remove it" for line in (2, 4, 5)
    ]
    assert list(found.rows) == [1, 6]


def test_rows_of_no_experiment(rows, tmp_path):
    record = record_of({})
    record["runs"] = [run_of("a", 0, 70.0), run_of("a", 1, None)]
    other = dict(row_of("b", 0, 61.25), numerics="bfloat16")
    odd = dict(test=[1], overrides="x", seed={}, config=None)
    found = rows(row_of("a", 0, 70.0), other, odd)
    second, third = found.others([record])
    assert second == dict(
        line=2,
        what="configs/kd/b.py model.alpha=0.9 bfloat16",
        seed=0,
        epochs=30,
        top1="61.25",
        finished="2026-01-01T00:00:00Z",
    )
    assert (third["line"], third["top1"], third["what"]) == (3, "", "None")
    assert len(found.others([])) == 3
    described = found.describe(Files(tmp_path, tmp_path))
    assert (described["path"], described["href"]) == ("runs.jsonl", "runs.jsonl")

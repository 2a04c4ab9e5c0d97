import json
import math

import pytest
from report_records import LIST, cell_of, record_of, run_of, write_record, write_run_files

from mmkd_logit.lab.report.data import read_experiment_files
from mmkd_logit.lab.report.page import (
    ExperimentView,
    ResultsRows,
    arrows,
    describe_method,
    duration,
    plural,
    quoted,
    run_facts,
)
from mmkd_logit.lab.report.page import format_number as number
from mmkd_logit.lab.report.page_figures import Files, Names


@pytest.fixture
def view(tmp_path):
    """Gives the section of an experiment."""

    def section(record, files=False):
        write_record(tmp_path, record)
        if files:
            write_run_files(tmp_path, record)
        results = tmp_path / "results"
        (experiment,) = read_experiment_files(results)
        view = ExperimentView(experiment, Files(results, results), Names(), ResultsRows(results))
        return view.section()

    return section


def test_a_list_of_cells(view):
    section = view(record_of(LIST))
    (table,) = section["tables"]
    assert (table["matrix"], table["with_paper"], table["columns"]) == (False, True, [""])
    cells = {row["label"]: row["cells"][0] for row in table["rows"]}
    assert list(cells) == ["CE", "KL tau 3", "MSE", "theirs alone"]
    ce, kl, mse, cited = cells.values()
    assert (ce["mean"], ce["spread"], ce["value"]) == ("71.00", "± 1.41 (2)", "71.0")
    assert (ce["paper"], ce["difference"], ce["meaning"]) == ("71.50", "−0.50", "read in a source")
    assert (kl["mean"], kl["spread"], kl["failed"]) == ("71.00", "(1)", 1)
    assert (mse["mean"], mse["value"], mse["failed"]) == ("", "", 2)
    assert (cited["mean"], cited["paper"], cited["difference"]) == ("", "60.25", "")
    assert cited["target"] == section["id"]
    assert {ce["target"], kl["target"]} < {group["id"] for group in section["groups"]}
    assert table["comparisons"] == ["a > b"]


def test_a_matrix_of_cells(view):
    cells = {
        f"{row}{column}": (f"{row} -> s", f"tau {column}", [70.0 + column], None)
        for row in "ab"
        for column in (1, 3)
    }
    del cells["b3"]
    (table,) = view(record_of(cells))["tables"]
    assert (table["matrix"], table["with_paper"]) == (True, False)
    assert table["columns"] == ["tau 1", "tau 3"]
    rows = {row["label"]: [c and c["mean"] for c in row["cells"]] for row in table["rows"]}
    assert rows == {"a → s": ["71.00", "73.00"], "b → s": ["71.00", None]}


def test_counts(view):
    section = view(record_of(LIST))
    assert (section["finished"], section["failed"], section["counts"]) == (3, 3, "6 runs, 3 failed")
    assert (section["seeds"], section["epochs"]) == (2, "30")


def test_nothing_finished(view):
    section = view(record_of(dict(a=("A", "", [None], 1.0))))
    assert (section["finished"], section["epochs"], section["counts"]) == (0, "", "1 run, 1 failed")
    assert [gap["text"] for gap in section["gaps"]] == [
        "1 of 1 run failed. What failed is tried again by"
    ]


def test_no_runs_at_all(view):
    section = view(record_of({}, metrics=[]))
    assert (section["counts"], section["tables"], section["groups"]) == ("0 runs", [], [])
    assert section["gaps"] == []


def test_each_run_says_how_it_was_made(view):
    record = record_of(LIST)
    record["runs"].append(run_of("teacher", 0, 90.5, dict(kind="ce", network="WRN")))
    section = view(record, files=True)
    ce, *_, teacher = section["groups"]
    assert (ce["label"], ce["titles"], ce["failed"]) == ("CE", ["test top-1 (%)"], 0)
    assert ce["method"] == "WRN · MSE between logits, α = 1 · teacher configs/wrn/t.py"
    first, second = ce["runs"]
    assert (first["numbers"], second["numbers"]) == (["70.00"], ["72.00"])
    assert first["command"] == ["python", "tools/train.py", "configs/kd/ce.py", "--seed", "0"]
    assert [(f["label"], f["href"]) for f in first["files"]] == [
        ("log", "../work_dirs/ce/seed0/train.log"),
        ("scalars", "../work_dirs/ce/seed0/1/vis_data/scalars.json"),
        ("logits test", "../work_dirs/ce/seed0/logits/test.npz"),
    ]
    assert json.loads(first["row"]) == record["runs"][0]["row"]
    assert dict(second["facts"])["results row"] == "runs.jsonl, line 2"
    assert (teacher["label"], teacher["method"]) == (
        "teacher (no cell of its own)",
        "WRN · cross-entropy",
    )
    assert teacher["runs"][0]["numbers"] == ["90.50"]  # of its row
    assert section["gaps"][0]["text"].startswith("3 of 7 runs failed.")


def test_what_is_missing_and_what_makes_it(view):
    record = record_of(LIST)
    for run in record["runs"]:
        run["files"] = dict(log=None, scalars=[], dumps={})
    failed, dumps, scalars = view(record)["gaps"]
    again = ["python", "tools/reproduce.py", "table1", "--only", "'*_mse'"]
    assert failed["command"] == again
    assert dumps["text"].startswith("3 of 3 finished runs kept no logits")
    assert dumps["command"] == [*again, "--dump-logits"]
    assert scalars["text"].startswith("3 of 3 finished runs left no scalars")
    assert scalars["command"] == ["python", "tools/train.py", "configs/kd/ce.py", "--seed", "0"]


def test_dumps_that_were_asked_for_are_not_asked_for_twice(view):
    words = ["python", "tools/reproduce.py", "a", "--dump-logits", "test", "--seeds", "2"]
    record = record_of(dict(a=("A", "", [1.0], None)), command=words)
    record["runs"][0]["files"]["dumps"] = {}
    (gap,) = view(record)["gaps"]
    assert gap["command"] == words


def test_the_sources_of_a_table(view, tmp_path):
    (tmp_path / "results/digits").mkdir(parents=True)
    (tmp_path / "results/digits/table1.csv").write_text("x")
    sources = view(record_of(LIST, scale="digits", root="../.."))["sources"]
    names = ["digits/table1.json", "digits/table1.csv", "runs.jsonl"]
    assert [source["path"] for source in sources] == names
    assert [source["href"] for source in sources] == names
    assert all(len(source["sha256"]) == 64 for source in sources)


def test_numbers_that_are_not_finite(view):
    record = record_of(dict(a=("A", "", [1.0], None), b=("B", "", [1.0], None)))
    record["metrics"][0]["cells"]["a"] = cell_of([math.nan])
    record["metrics"][0]["cells"]["b"] = cell_of([math.inf])
    cells = [row["cells"][0] for row in view(record)["tables"][0]["rows"]]
    assert [(cell["mean"], cell["value"]) for cell in cells] == [("nan", ""), ("inf", "")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0.00"),
        (-1.005, "−1.00"),
        (72.345, "72.34"),
        (True, ""),
        ("7", ""),
        ([1.0], ""),
        (math.nan, "nan"),
        (-math.inf, "−inf"),
        (1.5e7, "1.5e+07"),
        (10**400, ""),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_signed_number():
    assert [number(v, signed=True) for v in (1.0, -1.0, None)] == ["+1.00", "−1.00", ""]


def test_small_words():
    assert quoted(["a", "b c", "$x;", "'", ""]) == ["a", "'b c'", "'$x;'", "''\"'\"''", "''"]
    assert [plural(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert [arrows("a -> b"), arrows(None)] == ["a → b", ""]
    times = [duration(t) for t in (0, 1.234, 119.9, 120, 7199, 7200, 1e6, 1e8)]
    assert times == ["0 s", "1.23 s", "120 s", "2 min", "120 min", "2.0 h", "277.8 h", "27,777.8 h"]


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (dict(kind="ce", tau=3, alpha=None), "cross-entropy"),
        (dict(kind="kl", tau="inf", alpha=0.5, network="R"), "R · KL, τ = ∞, α = 0.5"),
        (dict(kind="kl", tau=20, alpha=1.0), "KL, τ = 20, α = 1"),
        (dict(kind="other", loss="DKDLoss", tau=None), "DKDLoss"),
        (dict(kind="other", loss=None), "several losses"),
        (
            dict(kind="mse", teacher_config="t.py", label_noise=dict(kind="symmetric", rate=0.4)),
            "MSE between logits · teacher t.py · symmetric label noise 0.4",
        ),
        (
            dict(kind="ce", label_noise=dict(kind="map", rate=None)),
            "cross-entropy · map label noise",
        ),
    ],
)
def test_method_in_words(method, text):
    assert describe_method(method) == text


def test_facts_of_a_run():
    run = run_of("a", 0, 70.0)
    facts = dict(run_facts(run, "runs.jsonl, line 1"))
    assert facts["epochs"] == "30, 450 iterations"
    assert facts["data"] == "train aa, test bb"
    assert facts["training"] == "12.5 s"
    assert facts["commit"] == "c" * 40
    assert facts["teachers' weights"] == "e" * 64
    assert "processes" not in facts
    run["row"].update(dirty=True, together=3, processes=2, resumed_at=15, seed=1000)
    facts = dict(run_facts(run))
    assert facts["commit"].endswith(", with files changed")
    assert facts["training"] == "12.5 s, 3 runs together"
    assert (facts["processes"], facts["own seed"]) == ("2", "1000")
    assert facts["epochs"].endswith(", resumed at 15")
    failed = dict(run_facts(run_of("a", 0, None)))
    assert set(failed) == {"config", "work folder", "epochs", "taught by"}

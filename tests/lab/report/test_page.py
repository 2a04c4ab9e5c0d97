"""The page of a folder of results, as a file."""

import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import PROJECT
from report_records import (
    HOSTILE,
    LIST,
    cell_of,
    drawing_of,
    figures_of,
    hostile_record,
    record_of,
    row_of,
    run_of,
    write_record,
    write_run_files,
)

from mmkd_logit.lab.report.page import build_report, describe_method, duration
from mmkd_logit.lab.report.page import format_number as number

GONE = "The files of 6 runs are gone; if they were moved, --root says where."


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(Path(path).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, attribute):
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(root, *records, figures=None):
    """Write experiments and return their page."""
    for record in records:
        write_record(root, record)
    return Page(build_report(root / "results", figures=figures or {})[0])


def test_tables_runs_and_figures(tmp_path):
    record = record_of(LIST)
    record["runs"].append(run_of("teacher", 0, 90.5, dict(kind="ce", network="WRN")))
    write_record(tmp_path, record)
    write_run_files(tmp_path, record)
    path, problems = build_report(tmp_path / "results", figures=figures_of("curves", "losses"))
    assert (path, problems) == (tmp_path / "results/report.html", [])
    page = Page(path)
    for told in (
        "Made from the files in results/",
        "4 of 7 finished, 3 failed",
        "training 50 s",
        "finished 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z",
        "Title of table1",
        "Weights after the last epoch.",
        "S read in a source",
        "python tools/reproduce.py table1 --only '*_mse'",
        "python tools/train.py configs/kd/kl.py --seed 0",
        "versions python 3.11.7, torch 2.15.0",
        "71.00 ± 1.41 (2) 71.50 S −0.50",
        "theirs alone - 60.25 S",
        "2 failed 75.00 S",
        "a > b",
        "What is drawn. The paper: Alike.",
        "WRN · MSE, α = 1 · teacher configs/wrn/t.py",
        "teacher (no cell of its own) · 1 run WRN · CE",
        "seed test top-1 (%) weights (SHA-256) files 0 90.50 0teacherffff log · scalars",
        "epochs 30, 450 iterations",
        "data test bb, train aa",
        "results row runs.jsonl, line 3",
        "3 of 7 runs failed. What failed is tried again by",
        hashlib.sha256((tmp_path / "results/table1.json").read_bytes()).hexdigest(),
        hashlib.sha256((tmp_path / "results/runs.jsonl").read_bytes()).hexdigest(),
    ):
        assert told in page.text, told
    for untold in ("other runs", "kept no logits", "left no scalars", "own seed", "processes 1"):
        assert untold not in page.text.lower()
    targets = page.all("a", "href")
    names = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {target[1:] for target in targets if target.startswith("#")} <= names
    assert len(names) == sum("id" in attrs for _, attrs in page.tags)
    files = {target for target in targets if not target.startswith("#")}
    assert {"../work_dirs/kl/seed0/train.log", "../work_dirs/ce/seed0/logits/test.npz"} < files
    assert all((tmp_path / "results" / name).is_file() for name in files)
    assert json.dumps(record["runs"][0]["row"], indent=1, sort_keys=True) in "".join(page.texts)


def test_a_matrix(tmp_path):
    cells = {
        f"{row}{column}": (f"{row} -> s", f"tau {column}", [70.0 + column], 60.0 * (row == "a"))
        for row in "ab"
        for column in (1, 3)
    }
    del cells["b3"]
    text = page_of(tmp_path, record_of(cells)).text
    assert "run tau 1 tau 3 a → s 71.00 (1) paper 60.00 S · +11.00 73.00 (1)" in text
    assert "b → s 71.00 (1)" in text


def test_numbers_that_are_not_finite(tmp_path):
    record = record_of(dict(a=("A", "", [1.0], None), b=("B", "", [1.0], None)))
    record["metrics"][0]["cells"].update(a=cell_of([float("nan")]), b=cell_of([float("inf")]))
    page = page_of(tmp_path, record)
    assert "A nan (1) B inf (1)" in page.text
    assert page.all("td", "data-value") == ["", ""]  # sorted last


def test_what_was_not_as_usual_is_told(tmp_path):
    record = record_of(dict(a=("A", "", [70.0], None)))
    row = record["runs"][0]["row"]
    row.update(dirty=True, group_size=3, processes=2, resumed_at=15, seed=1000)
    text = page_of(tmp_path, record).text
    for told in (
        f"commit {'c' * 40}, with files changed",
        "training 12.5 s, a group of 3",
        "own seed 1000",
        "processes 2",
        "30, 450 iterations, resumed at 15",
        "training 4.17 s",  # of all runs, those of a group once
    ):
        assert told in text, told


def test_what_is_missing_and_what_makes_it(tmp_path):
    record = record_of(LIST)
    for run in record["runs"]:
        run["files"] = dict(log=None, scalars=[], dumps={})
    text = page_of(tmp_path, record).text
    again = "python tools/reproduce.py table1 --only '*_mse'"
    assert f"3 of 6 runs failed. What failed is tried again by {again} Copy" in text
    assert "3 of 3 finished runs kept no logits" in text
    assert f"They are written by {again} --dump-logits Copy" in text
    assert "3 of 3 finished runs left no scalars" in text
    assert "such as python tools/train.py configs/kd/ce.py --seed 0 Copy" in text


def test_nothing_is_fetched(tmp_path):
    page = page_of(tmp_path, record_of(LIST), figures=figures_of("curves"))
    assert {value.partition(":")[0] for value in page.all("img", "src")} == {"data"}
    assert page.all("link", "href") == ["data:,"]
    assert not {"iframe", "object", "embed", "base", "form", "audio", "video"} & {
        tag for tag, _ in page.tags
    }
    assert page.all("script", "src") == []
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    text = (tmp_path / "results/report.html").read_text()
    for kind, tag in (("css", "style"), ("js", "script")):
        own = (PROJECT / f"mmkd_logit/lab/report/report.{kind}").read_text()
        assert text.count(f"<{tag}>{own}</{tag}>") == 1
        assert not re.search(r"https?:|url\(|@import", own)


def test_the_same_files_give_the_same_page(tmp_path):
    write_record(tmp_path, record_of(LIST))
    pages = []
    for _ in range(2):
        path, _ = build_report(tmp_path / "results", figures=figures_of("curves"))
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]


def page_that_says(root, said):
    """The page of experiments, rows and figures that say the same wherever they can."""
    write_record(root, hostile_record("digits", said), "digits/x.json")
    with open(root / "results/runs.jsonl", "a") as file:
        file.write(json.dumps(dict(row_of(said, 0, 1.0), overrides={said: said})) + "\n")
    fields = dict(title=said, caption=said, paper=said, sources=[said], numbers={said: said})
    drawn = drawing_of(said, **fields)

    def refuse(experiment):
        raise ValueError(said)

    figures = dict(
        a=SimpleNamespace(NEEDS="a", draw=lambda experiment: [drawn]),
        b=SimpleNamespace(NEEDS="b", draw=refuse),
        c=SimpleNamespace(NEEDS=None, draw=lambda: [drawn]),
    )
    return Page(build_report(root / "results", figures=figures)[0])


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    return page_that_says(tmp_path_factory.mktemp("harmless"), "harmless ")


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_the_data_say_stays_text(tmp_path, harmless, text):
    """The page has the elements and attributes of a harmless one, and no others."""
    page = page_that_says(tmp_path, text)
    shapes = [[(tag, sorted(attrs)) for tag, attrs in each.tags] for each in (harmless, page)]
    assert shapes[0] == shapes[1]
    for _, attrs in page.tags:
        target = attrs.get("href", "#")
        assert target.startswith(("#", "data:,", "digits/x", "figures/", "runs.jsonl")), target
        assert re.fullmatch(r"[\w.-]*", attrs.get("id", ""))
    shown = text.encode("utf-8", "backslashreplace").decode().replace("\r\n", "\n")
    assert "".join(page.texts).count(shown) > 20


def test_nothing_finished(tmp_path):
    page = page_of(tmp_path, record_of(dict(a=("A", "", [None, None], 71.0))))
    for told in ("0 of 2 finished, 2 failed", "2 failed 71.00", "2 of 2 runs failed."):
        assert told in page.text
    assert "The files of 2 runs are gone" in page.text


def test_no_runs_at_all(tmp_path):
    assert "0 of 0 finished" in page_of(tmp_path, record_of({}, metrics=[])).text


def test_two_scales_and_a_copy(tmp_path):
    for scale in (None, "digits", "cpu"):
        write_record(tmp_path, record_of(LIST, scale=scale, root="../.." if scale else ".."))
    write_record(tmp_path, record_of(LIST, scale="cpu"), "before/table1.json")
    page = page_of(tmp_path, figures=figures_of("curves"))
    assert len(page.all("section", "id")) == len(set(page.all("section", "id"))) == 4
    assert page.text.count("Title of table1 (before/table1.json)") == 3  # contents, table, section
    assert len(set(page.all("figure", "id"))) == 4


def test_runs_of_two_experiments_count_once(tmp_path):
    cells = dict(ce=("CE", "", [70.0], None))
    text = page_of(tmp_path, record_of(cells, "a"), record_of(cells, "b")).text
    assert "1 of 1 finished" in text
    assert "training 12.5 s" in text


def test_rows_of_no_table(tmp_path):
    write_record(tmp_path, record_of(LIST))
    with open(tmp_path / "results/runs.jsonl", "a") as file:
        row = dict(row_of("elsewhere", 4, 33.25), numerics="bfloat16")
        file.write(json.dumps(row) + '\n{"seed": 1}\nbroken\n\n')
    text = page_of(tmp_path).text
    assert "2 rows of runs.jsonl in no table here" in text
    assert "4 configs/kd/elsewhere.py model.alpha=0.9 bfloat16 4 30 33.25 2026-01-05" in text
    assert "runs.jsonl: line 6 is not a results row (Expecting value" in text


def test_moved_files(tmp_path):
    record = record_of(LIST)
    write_record(tmp_path / "here", record)
    write_run_files(tmp_path / "there", record)
    results, there = tmp_path / "here/results", tmp_path / "there"
    assert build_report(results, figures={})[1] == [GONE]
    path, problems = build_report(results, root=there, figures={})
    assert problems == []
    assert "log: work_dirs/kl/seed0/train.log" in Page(path).text  # outside: named, not linked
    path, _ = build_report(results, tmp_path / "page.html", there, {})
    assert "log: work_dirs/kl/seed0/train.log" in Page(path).text
    path, _ = build_report(results, there / "page.html", there, {})
    assert "work_dirs/kl/seed0/train.log" in Page(path).all("a", "href")


def test_results_of_another_disk_open_under_their_name(tmp_path):
    record = record_of(LIST, root="../../a/project")
    write_record(tmp_path / "disk", record)
    project = tmp_path / "a/project"
    write_run_files(project, record)
    (project / "results").symlink_to(tmp_path / "disk/results")
    path, problems = build_report(project / "results", figures={})
    assert (path, problems) == (project / "results/report.html", [])
    # A browser goes back by names: from a/project/results to a/project.
    assert "../work_dirs/kl/seed0/train.log" in Page(path).all("a", "href")


def test_figures_that_cannot_be_written_cost_their_files_alone(tmp_path):
    results = write_record(tmp_path, record_of(LIST)).parent
    (results / "figures").write_text("read-only, or a file")
    path, problems = build_report(results, tmp_path / "page.html", figures=figures_of("curves"))
    assert problems[0].startswith("The figures are on the page alone: ")
    assert len(Page(path).all("figure", "id")) == 1


def test_figures_that_cannot_be_drawn_are_told_at_their_experiment(tmp_path):
    for name in ("a", "b"):
        write_record(tmp_path, record_of(LIST, name))

    def fail(experiment=None):
        if experiment is None or experiment.key == "b":
            raise RuntimeError("no\ndump <of> it")
        return []

    figures = dict(
        grid=SimpleNamespace(NEEDS="a", draw=fail), losses=SimpleNamespace(NEEDS=None, draw=fail)
    )
    path, problems = build_report(tmp_path / "results", figures=figures)
    assert problems[-1] == "2 figures could not be drawn; the page says at its experiment why."
    text = Page(path).text
    note = text.index("Missing figure grid: RuntimeError: no dump <of> it")
    assert text.index("Title of b", text.index("How each number was made")) < note
    assert "Missing figure losses: RuntimeError: no dump <of> it" in text
    assert "71.00 ± 1.41 (2)" in text


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    results = write_record(tmp_path, record_of(LIST)).parent
    (results / "report.html").write_text("old")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        build_report(results, figures={})
    assert (results / "report.html").read_text() == "old"


def test_words():
    nan, inf = float("nan"), float("inf")
    values = (None, 0, -1.005, 72.345, nan, -inf, 1.5e7)
    assert [number(v) for v in values] == ["", "0.00", "−1.00", "72.34", "nan", "−inf", "1.5e+07"]
    assert [number(v, signed=True) for v in (1.0, -1.0, None)] == ["+1.00", "−1.00", ""]
    times = [duration(t) for t in (0, 1.234, 119.9, 120, 7199, 7200, 1e6, 1e8)]
    assert times == ["0 s", "1.23 s", "120 s", "2 min", "120 min", "2.0 h", "277.8 h", "27,777.8 h"]


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (dict(kind="ce", tau=3, alpha=None), "CE"),
        (dict(kind="kl", tau="inf", alpha=0.5, network="R"), "R · KL τ = ∞, α = 0.5"),
        (
            dict(kind="mse", alpha=9.0, weights=dict(ce=0.1, kd=9.0)),
            "MSE, 9 times it and 0.1 times CE",
        ),
        (dict(kind="other", loss="DKDLoss", tau=None), "DKDLoss"),
        (dict(kind="other", loss=None), "several losses"),
        (
            dict(kind="mse", teacher_config="t.py", label_noise=dict(kind="symmetric", rate=0.4)),
            "MSE · teacher t.py · symmetric label noise 40 %",
        ),
        (dict(kind="ce", label_noise=dict(kind="map", rate=None)), "CE · map label noise"),
    ],
)
def test_method_in_words(method, text):
    assert describe_method(method) == text

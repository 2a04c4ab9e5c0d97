"""tools/report.py: the page as a file."""

import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import PROJECT
from report_records import (
    HOSTILE,
    LIST,
    drawing_of,
    hostile_record,
    record_of,
    row_of,
    write_record,
    write_run_files,
)

from mmkd_logit.lab.report.page import build_report, main


def nothing(experiments, root, notes):
    return []


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.names, self.texts, self.stack = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, attribute):
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(path):
    return Page(Path(path).read_text(encoding="utf-8"))


def test_tables_runs_and_figures(tmp_path):
    record = record_of(LIST)
    write_record(tmp_path, record)
    write_run_files(tmp_path, record)
    draw = lambda *_: [drawing_of("curves", "table1"), drawing_of("losses")]  # noqa: E731
    path, problems = build_report(tmp_path / "results", draw=draw)
    assert (path, problems) == (tmp_path / "results/report.html", [])
    page = page_of(path)
    for told in (
        "Made from the files in results/",
        "3 of 6 finished, 3 failed",
        "Title of table1",
        "Weights after the last epoch.",
        "S read in a source",
        "python tools/reproduce.py table1 --only '*_mse'",
        "python tools/train.py configs/kd/kl.py --seed 0",
        "python 3.11.7, torch 2.15.0",
        "paper",
        "71.00 ± 1.41 (2)",
        "60.25",
        "What is drawn. The paper: Alike.",
        "runs.jsonl, line 3",
        hashlib.sha256((tmp_path / "results/table1.json").read_bytes()).hexdigest(),
        hashlib.sha256((tmp_path / "results/runs.jsonl").read_bytes()).hexdigest(),
    ):
        assert told in page.text, told
    assert "other runs" not in page.text.lower()
    targets = page.all("a", "href")
    names = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {target[1:] for target in targets if target.startswith("#")} <= names
    assert len(names) == sum("id" in attrs for _, attrs in page.tags)
    files = {target for target in targets if not target.startswith("#")}
    assert "../work_dirs/kl/seed0/train.log" in files
    assert all((tmp_path / "results" / name).is_file() for name in files)
    assert json.dumps(record["runs"][0]["row"], indent=1, sort_keys=True) in "".join(page.texts)


def test_nothing_is_fetched(tmp_path):
    write_record(tmp_path, record_of(LIST))
    path, _ = build_report(tmp_path / "results", draw=lambda *_: [drawing_of()])
    page = page_of(path)
    assert {value.partition(":")[0] for value in page.all("img", "src")} == {"data"}
    assert page.all("link", "href") == ["data:,"]
    assert not {"iframe", "object", "embed", "base", "form", "audio", "video"} & {
        tag for tag, _ in page.tags
    }
    assert page.all("script", "src") == []
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    text = path.read_text()
    for kind, tag in (("css", "style"), ("js", "script")):
        own = (PROJECT / f"mmkd_logit/lab/report/report.{kind}").read_text()
        assert text.count(f"<{tag}>{own}</{tag}>") == 1
        assert not re.search(r"https?:|url\(|@import", own)


def test_the_same_files_give_the_same_page(tmp_path):
    write_record(tmp_path, record_of(LIST))
    pages = []
    for _ in range(2):
        path, _ = build_report(tmp_path / "results", draw=lambda *_: [drawing_of()])
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]


def page_that_says(root, said):
    """The page of experiments, rows and figures that say the same wherever they can."""
    write_record(root, hostile_record("digits", said), "digits/x.json")
    with open(root / "results/runs.jsonl", "a") as file:
        file.write(json.dumps(dict(row_of(said, 0, 1.0), overrides={said: said})) + "\n")

    def draw(experiments, root, notes):
        notes.append(f"{experiments[0].path}, figure {said}")
        fields = dict(title=said, caption=said, paper=said, sources=[said], numbers={said: said})
        return [drawing_of(said, experiments[0].key, **fields), drawing_of(said, None, **fields)]

    path, _ = build_report(root / "results", draw=draw)
    return page_of(path)


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
    write_record(tmp_path, record_of(dict(a=("A", "", [None, None], 71.0))))
    path, problems = build_report(tmp_path / "results", draw=nothing)
    text = page_of(path).text
    assert "0 of 2 finished, 2 failed" in text
    assert "2 failed 71.00" in text
    assert problems == ["The files of 2 runs are gone; if they were moved, --root says where."]


def test_two_scales_and_a_copy(tmp_path):
    for scale in (None, "digits", "cpu"):
        root = "../.." if scale else ".."
        write_record(tmp_path, record_of(LIST, scale=scale, root=root))
    write_record(tmp_path, record_of(LIST, scale="cpu"), "before/table1.json")
    keys = []

    def draw(experiments, root, notes):
        keys.extend(each.key for each in experiments)
        return [drawing_of(each.key, each.key) for each in experiments]

    path, _ = build_report(tmp_path / "results", draw=draw)
    assert len(set(keys)) == 4
    page = page_of(path)
    assert len(page.all("section", "id")) == len(set(page.all("section", "id"))) == 4
    assert page.text.count("Title of table1 (before/table1.json)") == 3  # contents, table, section
    assert len(page.all("figure", "id")) == 4


def test_runs_of_two_experiments_count_once(tmp_path):
    for name in ("a", "b"):
        write_record(tmp_path, record_of(dict(ce=("CE", "", [70.0], None)), name))
    path, _ = build_report(tmp_path / "results", draw=nothing)
    text = page_of(path).text
    assert "1 of 1 finished" in text
    assert "training 12.5 s" in text


def test_rows_of_no_table(tmp_path):
    write_record(tmp_path, record_of(LIST))
    with open(tmp_path / "results/runs.jsonl", "a") as file:
        file.write(json.dumps(row_of("elsewhere", 4, 33.25)) + "\nbroken\n\n")
    path, problems = build_report(tmp_path / "results", draw=nothing)
    text = page_of(path).text
    assert "1 row of runs.jsonl in no table here" in text
    assert "4 configs/kd/elsewhere.py model.alpha=0.9 4 30 33.25" in text
    assert problems[0] == "runs.jsonl: line 5 is not a results row; remove it"
    assert problems[0] in text


def test_moved_files(tmp_path):
    record = record_of(LIST)
    write_record(tmp_path / "here", record)
    write_run_files(tmp_path / "there", record)
    results = tmp_path / "here/results"
    _, problems = build_report(results, draw=nothing)
    assert problems == ["The files of 6 runs are gone; if they were moved, --root says where."]
    path, problems = build_report(results, root=tmp_path / "there", draw=nothing)
    assert problems == []
    page = page_of(path)  # they are outside, so named and not linked
    assert "log: work_dirs/kl/seed0/train.log" in page.text
    path, _ = build_report(results, tmp_path / "page.html", tmp_path / "there", nothing)
    assert "log: work_dirs/kl/seed0/train.log" in page_of(path).text
    path, _ = build_report(results, tmp_path / "there/page.html", tmp_path / "there", nothing)
    assert "work_dirs/kl/seed0/train.log" in page_of(path).all("a", "href")


def test_results_of_another_disk_open_under_their_name(tmp_path):
    record = record_of(LIST, root="../../a/project")
    write_record(tmp_path / "disk", record)
    project = tmp_path / "a/project"
    write_run_files(project, record)
    (project / "results").symlink_to(tmp_path / "disk/results")
    path, problems = build_report(project / "results", draw=nothing)
    assert problems == []
    assert path == project / "results/report.html"
    # A browser goes back by names: from a/project/results to a/project.
    assert "../work_dirs/kl/seed0/train.log" in page_of(path).all("a", "href")


def test_figures_that_cannot_be_written_cost_their_files_alone(tmp_path):
    write_record(tmp_path, record_of(LIST))
    (tmp_path / "results/figures").write_text("read-only, or a file")
    path, problems = build_report(
        tmp_path / "results", tmp_path / "page.html", draw=lambda *_: [drawing_of()]
    )
    assert problems[-1].startswith("The figures are on the page alone: ")
    assert len(page_of(path).all("figure", "id")) == 1


def test_figures_that_cannot_be_drawn_are_told_at_their_experiment(tmp_path):
    for name in ("a", "b"):
        write_record(tmp_path, record_of(LIST, name))

    def draw(experiments, root, notes):
        notes += [f"{experiments[1].path}, figure grid: no dump <of> it", "figure losses: broken"]
        return []

    path, problems = build_report(tmp_path / "results", draw=draw)
    assert problems[-1] == "2 figures could not be drawn; the page says at its experiment why."
    text = page_of(path).text
    note = text.index("Missing figure grid: no dump <of> it")
    assert text.index("Title of b", text.index("How each number was made")) < note
    assert "Missing figure losses: broken" in text
    path, problems = build_report(tmp_path / "results", draw=lambda *_: 1 / 0)
    assert "The figures could not be drawn: ZeroDivisionError: division by zero" in problems
    assert "71.00 ± 1.41 (2)" in page_of(path).text


def test_hundreds_of_runs(tmp_path):
    """Their page is small enough to send, and what they share is hashed once."""
    cells = {
        f"r{i}-{k}": (f"row {i}", f"column {k}", [50.0 + i, 51.0 + k], 60.0)
        for i in range(15)
        for k in range(10)
    }
    write_record(tmp_path, record_of(cells))
    path, _ = build_report(tmp_path / "results", draw=nothing)
    assert page_of(path).text.count("--seed 1") >= 150
    assert path.stat().st_size < 3_000_000


def run(capsys, *words):
    """Return the exit status, standard output and standard error."""
    try:
        main([str(word) for word in words])
        status = 0
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmkd_logit.lab.report.command.PARTS", ())
    results = write_record(tmp_path, record_of(LIST)).parent
    status, out, err = run(capsys, results)
    assert (status, out) == (0, f"{results / 'report.html'}\n")
    assert err.startswith("The files of 6 runs are gone")
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "results", "--out", "new/page.html", "--root", ".")
    assert (status, out) == (0, f"{Path('new/page.html')}\n")
    assert "Made from the files in results/" in page_of("new/page.html").text
    monkeypatch.chdir(results)
    assert run(capsys, ".")[0] == 0
    assert "Made from the files in results/" in page_of("report.html").text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["none"], "the folder none does not exist"),
        (["empty"], "empty holds no experiments"),
        (["results", "--root", "none"], "none does not exist"),
        (["results", "--out", "empty"], "empty"),
        (["results", "--out", "results/table1.json/page.html"], "table1.json"),
        (["broken"], "broken/a.json is not whole JSON"),
        (["results\0"], "results"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, capsys, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmkd_logit.lab.report.command.PARTS", ())
    write_record(tmp_path, record_of(LIST))
    for name in ("empty", "broken"):
        Path(name).mkdir()
    Path("broken/a.json").write_text('{"format": 1, "cells"')
    status, out, err = run(capsys, *words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert why in err
    assert not list(tmp_path.rglob("*.part"))


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    results = write_record(tmp_path, record_of(LIST)).parent
    (results / "report.html").write_text("old")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        build_report(results, draw=nothing)
    assert (results / "report.html").read_text() == "old"


def test_it_knows_files_alone(tmp_path):
    """The tool starts without torch and the mm packages, which cost seconds."""
    write_record(tmp_path, record_of(LIST))
    code = (
        "import sys\n"
        "from mmkd_logit.lab.report.page import main\n"
        "main(['results'])\n"
        "print(sorted({'torch', 'mmengine', 'mmpretrain', 'mmcv'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(Path("results/report.html")), "[]"]
    assert "Traceback" not in done.stderr

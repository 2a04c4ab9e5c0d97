"""tools/report.py: the page, or one figure of results or of work folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PROJECT
from lab.report.records import TOP1, TRAIN, Records, write_scalars
from PIL import Image

from mmkd_logit.lab.report import command
from mmkd_logit.lab.report.data import experiment_of_folders
from mmkd_logit.lab.report.figures import learning_curves


def lines_of(epochs=2):
    return [
        dict(step=10 * e, epoch=e, batch_top1=1.0 * e, kd=1.0 / e) for e in range(1, epochs + 1)
    ]


@pytest.fixture
def results(tmp_path):
    for scale in ("digits", None):
        records = Records(tmp_path, name="grid", scale=scale, metrics=(TOP1,))
        for alpha in (0.5, 1.0):
            name = f"{scale}_a{alpha}"
            for tau, run_name in ((1, name), (20, f"{name}_t20")):
                place = dict(row=f"A -> B, tau {tau}", column=f"{alpha}")
                records.add(run_name, [50.0], **place, tau=tau, alpha=alpha)
                write_scalars(records.work_dir(run_name), lines_of())
        records.write()
    return tmp_path / "results"


def run(capsys, *argv):
    """Return exit status, and the lines of stdout and of stderr."""
    status = 0
    try:
        command.main([str(each) for each in argv])
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err.splitlines()


def test_writes_both_files_and_prints_their_paths(results, capsys):
    status, out, err = run(capsys, results, "--figure", "grid")
    assert (status, err) == (0, [])
    assert out == [
        f"{results}/figures/{key}-accuracy-A-to-B.{kind}"
        for key in ("grid", "digits-grid")
        for kind in ("svg", "png")
    ]
    with Image.open(out[1]) as picture:
        assert picture.text["Title"] == "Accuracy over α and τ: A -> B"
        assert "n = 1 seed" in picture.text["Description"]
    assert "n = 1 seed, so no spread" in Path(out[0]).read_text()


def test_only_some_experiments_and_another_folder(results, tmp_path, capsys):
    words = [results, "--figure", "grid", "--out", tmp_path / "pictures", "--experiment"]
    status, out, _ = run(capsys, *words, "digits/grid")
    assert status == 0
    assert out[0] == f"{tmp_path}/pictures/digits-grid-accuracy-A-to-B.svg"
    assert len(out) == 2
    assert len(run(capsys, *words, "grid")[1]) == 4


def test_one_file_says_by_which_commands_it_was_made(results, tmp_path, capsys):
    for kind in ("svg", "png"):
        out = tmp_path / f"pictures/grid.{kind}"
        words = [results, "--figure", "grid", "--experiment", "digits/grid", "--out", out]
        assert run(capsys, *words) == (0, [str(out)], [])
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        made_by = (
            "Made by: python tools/reproduce.py grid; python tools/report.py RESULTS --figure grid "
            "--experiment digits/grid"
        )
        if kind == "svg":
            said = " ".join(out.read_text().split())
            assert "n = 1 seed, so no spread; 3 epochs" in said
        else:
            with Image.open(out) as picture:
                said = picture.text["Description"]
        assert made_by in said
        out.unlink()
    status, out, err = run(capsys, results, "--figure", "grid", "--out", tmp_path / "x.svg")
    assert (status, out) == (1, [])
    assert "is one file for 2 figures" in err[0]
    assert not (tmp_path / "x.svg").exists()


def test_some_metrics(tmp_path, capsys):
    records = Records(tmp_path, name="grid", metrics=(TOP1, TRAIN))
    for alpha in (0.5, 1.0):
        values = [{TOP1[1]: 50.0, TRAIN[1]: 90.0}]
        for tau in (1, 20):
            place = dict(row=f"A, tau {tau}", column=f"{alpha}")
            records.add(f"a{alpha}_t{tau}", values, **place, tau=tau, alpha=alpha)
    records.write()
    words = [tmp_path / "results", "--figure", "grid", "--out", tmp_path / "x.png", "--metric"]
    heights = []
    for keys in ([TOP1[1], TRAIN[1]], [TRAIN[1]]):
        assert run(capsys, *words, *keys)[0] == 0
        with Image.open(tmp_path / "x.png") as picture:
            heights.append(picture.width / picture.height)
    assert heights[0] == heights[1]  # beside each other
    status, _, (error,) = run(capsys, *words, "test.top")
    assert (status, "no metric test.top among test.accuracy/top1" in error) == (1, True)


def test_the_page(results, capsys, monkeypatch):
    monkeypatch.chdir(results.parent)
    monkeypatch.setattr(command.build_report, "__defaults__", (None, None, {}))
    assert run(capsys, results)[:2] == (0, [f"{results / 'report.html'}"])
    words = ["results", "--out", "new/page.html", "--root", "."]
    assert run(capsys, *words)[:2] == (0, ["new/page.html"])
    assert "Made from the files in results/" in Path("new/page.html").read_text()
    monkeypatch.chdir(results)
    assert run(capsys, ".")[0] == 0
    assert "Made from the files in results/" in Path("report.html").read_text()


def test_work_folders_outside_any_experiment(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/seed0", "a/seed1", "b/seed0"):
        write_scalars(tmp_path / "work_dirs" / name, lines_of())
    folders = [f"work_dirs/{name}" for name in ("a/seed0", "a/seed1", "b/seed0")]
    status, out, err = run(capsys, *folders, "--figure", "learning_curves")
    assert (status, err) == (0, [])
    assert out == [f"figures/runs-learning-curves-a-b.{kind}" for kind in ("svg", "png")]
    (drawing,) = learning_curves.draw(experiment_of_folders([Path(each) for each in folders]))
    found = drawing.numbers["batch_top1"]
    assert {label: curve["n"] for label, curve in found.items()} == {"a": 2, "b": 1}
    assert drawing.sources == [f"{f}/20260101_000000/vis_data/scalars.json" for f in folders]


def test_losses_need_no_folder(tmp_path, capsys):
    status, out, _ = run(capsys, "--figure", "losses", "--out", tmp_path)
    assert (status, out) == (0, [f"{tmp_path}/losses.svg", f"{tmp_path}/losses.png"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["none"], "the folder none does not exist"),
        (["work_dirs"], "holds no experiments"),
        (["results", "--root", "none"], "none does not exist"),
        (["results", "--out", "work_dirs"], "work_dirs"),
        (["results", "--out", "results/grid.json/page.html"], "grid.json"),
        (["broken"], "broken/a.json is not whole JSON"),
        (["results\0"], "results"),
        ([], "the page is of one folder of results"),
        (["results", "--metric", "a"], "the page is of one folder of results"),
        (["--json"], "--json takes folders of results"),
        (["results", "--json", "--figure", "grid"], "--json takes folders of results"),
        (["work_dirs", "--json"], "the results rows work_dirs/runs.jsonl do not exist"),
        (["results", "results"], "the page is of one folder of results"),
        (["none", "--figure", "grid"], "none does not exist"),
        (["--figure", "grid"], "--figure grid needs an experiment with one loss at several alphas"),
        (
            ["results", "--figure", "grid", "--experiment", "table9"],
            "no experiment table9 among digits/grid, grid",
        ),
        (["work_dirs/None_a1.0/seed0", "--figure", "grid"], "is the work folder of a run"),
        (["results", "--figure", "label_noise"], "needs an experiment with several tau on wrong"),
    ],
)
def test_errors_are_one_line(results, capsys, monkeypatch, words, text):
    monkeypatch.chdir(results.parent)
    Path("broken").mkdir()
    Path("broken/a.json").write_text('{"format": 2, "cells"')
    status, out, err = run(capsys, *words)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith("error: ")
    assert text in err[0]
    assert not list(results.parent.rglob("*.part"))


def test_one_experiment_that_fails_takes_no_other_with_it(results, tmp_path, capsys):
    records = Records(tmp_path, name="table1")
    records.add("x", [50.0], row="A", column="tau 1", tau=1)
    records.write()
    status, out, err = run(capsys, results, "--figure", "learning_curves")
    assert (status, len(out), len(err)) == (1, 4, 1)
    assert err[0].startswith("error: digits/table1: figure learning_curves: none of the 1 finished")


def test_needs_neither_torch_nor_mm_packages(results):
    """In a fresh process: reading files and drawing them starts in a second."""
    code = (
        "import sys\n"
        "from mmkd_logit.lab.report.command import main\n"
        "main(['results', '--figure', 'grid'])\n"
        "heavy = {'torch', 'mmengine', 'mmcv', 'mmpretrain'} & set(sys.modules)\n"
        "ours = [n for n in sys.modules if n.startswith('mmkd_logit.') and '.lab' not in n]\n"
        "print(sorted(heavy), sorted(ours))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=results.parent, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    light = ["utils", "utils.arguments", "utils.cli", "utils.files", "version"]
    assert done.stdout.splitlines()[-1] == f"[] {[f'mmkd_logit.{name}' for name in light]}"

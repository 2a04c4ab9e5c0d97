import subprocess
import sys

import numpy as np
import pytest
from commands import PROJECT
from lab.report.records import TOP1, Records, method, write_dump, write_scalars
from matplotlib.figure import Figure
from PIL import Image

from mmkd_logit.lab.report import command
from mmkd_logit.lab.report.command import PARTS
from mmkd_logit.lab.report.page_figures import render_figure
from mmkd_logit.lab.report.style import Drawing

TOOLS = PROJECT / "tools" / "analysis"


@pytest.fixture
def small(monkeypatch):
    """Pictures of few pixels without layout; what is in them is looked at elsewhere."""
    whole = Figure.savefig

    def savefig(figure, *args, **kwargs):
        figure.set_layout_engine("none")
        whole(figure, *args, **{**kwargs, "dpi": 20})

    monkeypatch.setattr(Figure, "savefig", savefig)


def lines_of(epochs=2):
    return [
        dict(step=10 * e, epoch=e, batch_top1=1.0 * e, loss_kd=1.0 / e)
        for e in range(1, epochs + 1)
    ]


def results(tmp_path, scales=("digits", None)):
    for scale in scales:
        records = Records(tmp_path, name="grid", scale=scale, metrics=(TOP1,))
        for alpha in (0.5, 1.0):
            name = f"{scale}_a{alpha}"
            records.add(name, [50.0], row="A -> B, tau 1", column=f"{alpha}", tau=1, alpha=alpha)
            write_scalars(records.work_dir(name), lines_of())
        records.file()
    return tmp_path / "results"


def run(capsys, name, *argv):
    """Return exit status, and the lines of stdout and of stderr."""
    status = 0
    try:
        command.main(name, [str(each) for each in argv])
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err.splitlines()


def test_a_tool_for_every_figure():
    assert {path.stem for path in TOOLS.glob("*.py")} == set(command.FIGURES)
    assert set(command.FIGURES) == {*PARTS, "losses"}
    for path in TOOLS.glob("*.py"):
        assert f'main("{path.stem}")' in path.read_text()


def test_writes_both_files_and_prints_their_paths(tmp_path, capsys, small):
    folder = results(tmp_path)
    status, out, err = run(capsys, "grid", folder)
    assert (status, err) == (0, [])
    assert out == [
        f"{folder}/figures/{key}-accuracy-A-to-B.{kind}"
        for key in ("grid", "digits-grid")
        for kind in ("png", "svg")
    ]
    with Image.open(out[0]) as picture:
        assert picture.text["Title"] == "Accuracy over α and τ: A -> B"
        assert "n = 1 seed" in picture.text["Description"]
    svg = (folder / "figures" / "grid-accuracy-A-to-B.svg").read_text()
    assert "n = 1 seed, so no spread" in svg


def test_only_some_experiments_and_another_folder(tmp_path, capsys, small):
    folder, out_dir = results(tmp_path), tmp_path / "pictures"
    status, out, _ = run(capsys, "grid", folder, "--experiment", "digits/grid", "--out", out_dir)
    assert status == 0
    assert out[0] == f"{out_dir}/digits-grid-accuracy-A-to-B.png"
    assert len(out) == 2
    _, out, _ = run(capsys, "grid", folder, "--experiment", "grid", "--out", out_dir)
    assert len(out) == 4


def test_work_folders_outside_any_experiment(tmp_path, capsys, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/seed0", "a/seed1", "b/seed0"):
        write_scalars(tmp_path / "work_dirs" / name, lines_of())
    folders = [f"work_dirs/{name}" for name in ("a/seed0", "a/seed1", "b/seed0")]
    status, out, err = run(capsys, "learning_curves", *folders)
    assert (status, err) == (0, [])
    assert out == [f"figures/runs-learning-curves-a-b.{kind}" for kind in ("png", "svg")]
    (drawing,), _ = command.draw_figure("learning_curves", folders)
    found = drawing.numbers["batch_top1"]
    assert {label: curve["n"] for label, curve in found.items()} == {"a": 2, "b": 1}
    assert drawing.sources == [f"{f}/20260101_000000/vis_data/scalars.json" for f in folders]


def test_methods_of_work_folders_are_those_of_their_dumps(tmp_path):
    for name, how in (("a", method("mse")), ("b", method("kl", tau=3))):
        write_scalars(tmp_path / name, lines_of())
        write_dump(tmp_path / name, "test", dict(method=how), logits=np.zeros((1, 2)))
    (drawing,), _ = command.draw_figure("learning_curves", [tmp_path / "a", tmp_path / "b"])
    assert set(drawing.numbers["batch_top1"]) == {"MSE", "KL τ = 3"}


def test_errors_are_one_line(tmp_path, capsys, small):
    folder = results(tmp_path)
    write_scalars(tmp_path / "work_dirs" / "a" / "seed0", lines_of())
    for argv, text in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([tmp_path / "work_dirs"], "holds no experiments"),
        ([folder, "--experiment", "table9"], "no experiment table9 among digits/grid, grid"),
        ([tmp_path / "work_dirs" / "a" / "seed0"], "is the work folder of a run"),
    ):
        status, out, err = run(capsys, "grid", *argv)
        assert (status, out, len(err)) == (1, [], 1), argv
        assert err[0].startswith("error: ")
        assert text in err[0]
    status, out, err = run(capsys, "label_noise", folder)
    assert (status, out, len(err)) == (1, [], 1)
    assert "that needs an experiment with several tau on wrong labels" in err[0]


def test_one_experiment_that_fails_takes_no_other_with_it(tmp_path, capsys, small):
    folder = results(tmp_path)
    records = Records(tmp_path, name="table1")
    records.add("x", [50.0], row="A", column="tau 1", tau=1)
    records.file()
    status, out, err = run(capsys, "learning_curves", folder)
    assert (status, len(out), len(err)) == (1, 4, 1)
    assert err[0].startswith("error: digits/table1: none of the 1 finished runs left")


def test_losses_need_no_folder(tmp_path, capsys, small):
    status, out, _ = run(capsys, "losses", "--out", tmp_path)
    assert (status, out) == (0, [f"{tmp_path}/losses.png", f"{tmp_path}/losses.svg"])


def test_the_same_figure_is_the_same_file(small):
    def svg(name):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        drawing = Drawing(name="x", title="T", caption="C", figure=figure)
        return render_figure(drawing, name)[0]

    assert svg("x") == svg("x")


def test_analysis_needs_neither_torch_nor_mm_packages():
    """In a fresh process: reading files and drawing them starts in a second."""
    code = (
        "import importlib, pkgutil, sys, mmkd_logit.lab.report as room\n"
        "for each in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module(f'{room.__name__}.{each.name}')\n"
        "heavy = {'torch', 'mmengine', 'mmcv', 'mmpretrain'} & set(sys.modules)\n"
        "ours = [n for n in sys.modules if n.startswith('mmkd_logit.') and '.lab' not in n]\n"
        "print(sorted(heavy), sorted(ours))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    light = ["utils", "utils.arguments", "utils.cli", "utils.files", "version"]
    assert done.stdout.strip() == f"[] {[f'mmkd_logit.{name}' for name in light]}"


def test_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOLS / "grid.py", tmp_path / "none"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"error: the folder {tmp_path / 'none'} does not exist\n"

import base64
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from report_records import drawing_of, record_of, write_record

from mmkd_logit.lab.report import command as figures
from mmkd_logit.lab.report import page_figures as _report_figures
from mmkd_logit.lab.report.data import read_experiment_files
from mmkd_logit.lab.report.page_figures import Files, Names, show_figures


@pytest.fixture
def show(tmp_path):
    """Shows figures of two experiments, which say that their runs were made in other places."""
    for scale, root in ((None, ".."), ("digits", "../../other")):
        write_record(tmp_path, record_of({}, scale=scale, root=root))
    results = tmp_path / "results"

    def call(draw):
        experiments = read_experiment_files(results)
        return show_figures(experiments, draw, Files(results, results), Names())

    return call


def test_inside_the_page_and_beside_it(show, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/scalars.json").write_text("x")
    drawing = drawing_of(
        "a/b c", "digits/table1", sources=["scalars.json", "none"], numbers=dict(mean=1.5)
    )
    found = show(lambda *_: [drawing])
    ((key, figure),) = found.shown
    assert (key, found.missing, found.problem) == ("digits/table1", [], "")
    assert (figure["title"], figure["caption"]) == ("Figure a/b c", "What is drawn.")
    assert (figure["width"], figure["height"]) == (288, 192)
    svg = (tmp_path / "results/figures/a-b-c.svg").read_bytes()
    assert figure["image"] == f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    png = (tmp_path / "results/figures/a-b-c.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert [(f["label"], f["href"]) for f in figure["files"]] == [
        ("SVG", "figures/a-b-c.svg"),
        ("PNG", "figures/a-b-c.png"),
    ]
    there, gone = figure["sources"]
    assert there["sha256"] == hashlib.sha256(b"x").hexdigest()
    assert gone["sha256"] is None
    assert figure["numbers"] == '{\n "mean": 1.5\n}'
    assert b"<text" not in svg  # letters are outlines, which need no font
    assert not re.search(rb"(href|src)=\"(?!#)", svg)


def test_the_same_figure_is_the_same_file(show, tmp_path):
    written = []
    for _ in range(2):
        show(lambda *_: [drawing_of()])
        folder = tmp_path / "results/figures"
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == ["curves.png", "curves.svg"]


def test_names_that_clash(show, tmp_path):
    found = show(lambda *_: [drawing_of("a b"), drawing_of("A-B"), drawing_of("..")])
    assert len({figure["id"] for _, figure in found.shown}) == 3
    names = {path.name for path in (tmp_path / "results/figures").iterdir()}
    assert {"a-b.svg", "A-B-2.svg", "x.svg"} < names


def test_figures_of_no_experiment(show):
    found = show(lambda *_: [drawing_of("a"), drawing_of("b", "cpu/nowhere")])
    assert [key for key, _ in found.shown] == [None, None]


class Broken(Figure):
    def savefig(self, *args, **kwargs):
        raise RuntimeError("no\nink")


def test_one_that_fails_takes_no_other_with_it(show):
    broken = drawing_of("b", "table1")
    broken.figure = Broken()
    circle = {}
    circle["me"] = circle
    odd = drawing_of("c", "digits/table1", numbers=circle)
    found = show(lambda *_: [drawing_of("a"), broken, odd, drawing_of("d")])
    assert [figure["title"] for _, figure in found.shown] == ["Figure a", "Figure d"]
    assert found.missing == [
        ("table1", "figure b: RuntimeError: no ink"),
        ("digits/table1", "figure c: ValueError: Circular reference detected"),
    ]


def test_notes_go_to_their_experiment(show, tmp_path):
    def draw(experiments, root, notes):
        assert root == tmp_path
        notes += [f"{e.path}, figure grid: none of {e.path}" for e in experiments]
        notes.append("figure losses: at all")
        return []

    found = show(draw)
    results = tmp_path / "results"
    assert found.missing == [
        ("table1", f"figure grid: none of {results / 'table1.json'}"),
        ("digits/table1", f"figure grid: none of {results / 'digits/table1.json'}"),
        (None, "figure losses: at all"),
    ]


def test_nothing_can_be_drawn(show, tmp_path):
    def draw(experiments, root, notes):
        raise RuntimeError("all\n  wrong")

    found = show(draw)
    assert found.shown == []
    assert found.problem == "The figures could not be drawn: RuntimeError: all wrong"


def test_figures_that_cannot_be_written_are_shown(show, tmp_path):
    (tmp_path / "results/figures").write_text("a file where the folder should be")
    found = show(lambda *_: [drawing_of()])
    ((_, figure),) = found.shown
    assert figure["image"].startswith("data:image/svg+xml;base64,")
    assert figure["files"] == []
    assert found.problem.startswith("The figures are on the page alone: ")


def test_clouds_of_points_become_pixels(show, monkeypatch):
    monkeypatch.setattr(_report_figures, "_LARGEST_SVG", 100)
    monkeypatch.setattr(_report_figures, "_LONGEST", 10)
    ((_, figure),) = show(lambda *_: [drawing_of(numbers=dict(x=[1] * 100))]).shown
    assert figure["image"].startswith("data:image/png;base64,iVBOR")
    assert figure["numbers"].endswith("\n... cut off here")
    assert len(figure["numbers"]) == 27


def test_parts_that_fail_are_noted_or_raised(show, monkeypatch, tmp_path):
    """Of figures.py: every part on its own."""

    class Part:
        @staticmethod
        def draw(*given):
            if given and given[0].record["scale"]:
                raise ValueError("no\ndumps")
            return [drawing_of()]

    modules = []
    importer = SimpleNamespace(import_module=lambda name: modules.append(name) or Part)
    monkeypatch.setattr(figures, "importlib", importer)
    experiments = read_experiment_files(tmp_path / "results")
    notes = []
    drawn = figures.draw_all(experiments, None, notes)
    assert len(drawn) == len(figures.PARTS) + 1
    path = Path(tmp_path, "results/digits/table1.json")
    assert notes == [f"{path}, figure {name}: no dumps" for name in figures.PARTS]
    assert modules[-1] == "mmkd_logit.lab.report.figures.losses"
    with pytest.raises(ValueError, match="dumps"):
        figures.draw_all(experiments)

"""Figures as files and in a page."""

import base64
import hashlib
import re
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from report_records import drawing_of, figures_of, record_of

from mmkd_logit.lab.report import page_figures
from mmkd_logit.lab.report.data import Experiment
from mmkd_logit.lab.report.page_figures import Files, embed, render_figures


def render(*drawings):
    """Render drawings as one figure of no experiment."""
    figure = SimpleNamespace(NEEDS=None, draw=lambda: list(drawings))
    return [rendered for _, rendered in render_figures([], dict(made=figure))]


def test_inside_the_page_and_beside_it(tmp_path):
    (tmp_path / "scalars.json").write_text("x")
    drawing = drawing_of("a/b c", sources=["scalars.json", "none"], numbers=dict(mean=1.5))
    (rendered,) = render(drawing)
    svg, png = rendered.write(tmp_path / "figures")
    assert [svg.name, png.name] == ["a-b-c.svg", "a-b-c.png"]
    assert (svg.read_bytes(), png.read_bytes()) == (rendered.svg, rendered.png)
    assert rendered.png.startswith(b"\x89PNG")
    assert b"<text" not in rendered.svg  # letters are outlines, which need no font
    assert not re.search(rb"(href|src)=\"(?!#)", rendered.svg)
    figure = embed(rendered, tmp_path, Files(tmp_path, tmp_path))
    assert (figure["width"], figure["height"]) == (288, 192)
    data = base64.b64encode(rendered.svg).decode()
    assert figure["image"] == f"data:image/svg+xml;base64,{data}"
    there, gone = figure["sources"]
    assert there["sha256"] == hashlib.sha256(b"x").hexdigest()
    assert gone["sha256"] is None
    assert figure["numbers"] == '{\n "mean": 1.5\n}'


def test_the_same_figure_is_the_same_file():
    (first,), (second,) = render(drawing_of()), render(drawing_of())
    assert (first.svg, first.png) == (second.svg, second.png)


class Broken(Figure):
    def savefig(self, *args, **kwargs):
        raise RuntimeError("no\nink")


def test_one_that_fails_takes_no_other_with_it(tmp_path):
    def refuse(experiment):
        if experiment.key == "b":
            raise ValueError("no\ndumps")
        return [drawing_of("c"), drawing_of("d", figure=Broken())]

    experiments = [Experiment(tmp_path, tmp_path, record_of({}, name)) for name in "ab"]
    figures = {"made": SimpleNamespace(NEEDS="x", draw=refuse), **figures_of("losses")}
    found = [
        (experiment and experiment.key, each if isinstance(each, str) else each.drawing.title)
        for experiment, each in render_figures(experiments, figures)
    ]
    assert found == [
        ("a", "Figure c"),
        ("a", "figure made: RuntimeError: no ink"),
        ("b", "figure made: no dumps"),
        (None, "Figure losses"),
    ]


@pytest.mark.parametrize("name", ["_LARGEST_SVG", "_LONGEST"])
def test_what_is_large_is_made_small(tmp_path, monkeypatch, name):
    """Clouds of points become pixels; long numbers are cut off."""
    monkeypatch.setattr(page_figures, name, 10)
    (rendered,) = render(drawing_of(numbers=dict(x=[1] * 100)))
    figure = embed(rendered, tmp_path, Files(tmp_path, tmp_path))
    assert figure["image"].startswith("data:image/png") == (name == "_LARGEST_SVG")
    cut = figure["numbers"].endswith("\n... cut off here")
    assert cut == (len(figure["numbers"]) == 27) == (name == "_LONGEST")

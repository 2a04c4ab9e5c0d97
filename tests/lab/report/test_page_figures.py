"""Figures as files and in a page."""

import base64
import hashlib
import re
from types import SimpleNamespace

import pytest
from report_records import drawing_of

from mmkd_logit.lab.report import page_figures
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


@pytest.mark.parametrize("name", ["_LARGEST_SVG", "_LONGEST"])
def test_what_is_large_is_made_small(tmp_path, monkeypatch, name):
    """Clouds of points become pixels; long numbers are cut off."""
    monkeypatch.setattr(page_figures, name, 10)
    (rendered,) = render(drawing_of(numbers=dict(x=[1] * 100)))
    figure = embed(rendered, tmp_path, Files(tmp_path, tmp_path))
    assert figure["image"].startswith("data:image/png") == (name == "_LARGEST_SVG")
    cut = figure["numbers"].endswith("\n... cut off here")
    assert cut == (len(figure["numbers"]) == 27) == (name == "_LONGEST")

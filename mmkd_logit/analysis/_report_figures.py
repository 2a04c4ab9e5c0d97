"""Figures in a report: inside it as images, and beside it as files."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from mmkd_logit._atomic_files import write_bytes

from ._report_files import Files, Names

if TYPE_CHECKING:
    from .figures import Drawing

_LARGEST_SVG = 1_500_000  # bytes; clouds of points are lighter as pixels


def show_figures(
    drawings: Sequence["Drawing"], files: Files, names: Names, root: Path
) -> list[tuple[str | None, dict[str, Any]]]:
    """Write figures to ``RESULTS/figures`` and prepare them for the page.

    As images and not as elements their names cannot clash, and nothing in them runs.

    Args:
        drawings: The figures.
        files: Of the report.
        names: Of places in the page.
        root: What paths of sources are seen from.

    Returns:
        The exhibit each is for, or None, and what the template takes.

    Raises:
        OSError: If a file cannot be written.
    """
    folder = files.results / "figures"
    shown, stems = [], Names()
    for drawing in drawings:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / stems(drawing.name)
        svg, png = _write(drawing.figure, path)
        kind, data = ("svg+xml", svg) if len(svg) <= _LARGEST_SVG else ("png", png)
        width, height = (round(96 * inches) for inches in drawing.figure.get_size_inches())
        links = [f for s in ("svg", "png") for f in files.link(s.upper(), f"{path}.{s}", root)]
        figure = dict(
            id=names(f"figure-{drawing.name}"),
            title=drawing.title,
            caption=drawing.caption,
            paper=drawing.paper,
            image=f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
            width=width,
            height=height,
            files=links,
            numbers=json.dumps(drawing.numbers, indent=1, default=_plain)[:200_000]
            if drawing.numbers
            else "",
            sources=files.describe(drawing.sources, root),
        )
        shown.append((drawing.exhibit, figure))
    return shown


def _write(figure: Any, path: Path) -> tuple[bytes, bytes]:
    """Write a figure as SVG, the same bytes for the same figure, and as PNG."""
    written = []
    # Text stays text: it is found, copied and read aloud.
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=200, facecolor="white", metadata=metadata)
            write_bytes(f"{path}.{kind}", buffer.getvalue())
            written.append(buffer.getvalue())
    return written[0], written[1]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)

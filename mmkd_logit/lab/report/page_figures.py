"""Figures of a page, and links to the files behind its numbers."""

import base64
import functools
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote

import matplotlib

from mmkd_logit.utils.files import write_bytes

from .data import Experiment
from .style import Drawing, style

_LARGEST_SVG = 1_500_000  # bytes; clouds of points are lighter as pixels
_LONGEST = 200_000  # characters of the numbers drawn
# What XML cannot hold, though a string of a JSON file can.
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Files:
    """Links from a page to files.

    A link is relative, leads to a file that exists, and stays in a folder that the page lies in
    too: the root of the runs, or the folder of results. Other files are only named.
    """

    def __init__(self, page: Path, results: Path) -> None:
        self.page, self.results = _absolute(page), _absolute(results)
        self._hash = functools.cache(_sha256)

    def href(self, path: str | Path, root: Path) -> str | None:
        """Return the link to a file, or None."""
        target = _absolute(root / path)
        bases = [base for base in (_absolute(root), self.results) if target.is_relative_to(base)]
        if not any(map(self.page.is_relative_to, bases)) or not os.path.isfile(target):
            return None
        # Also the colon is quoted: a file may be called as a protocol is.
        return quote(os.fsencode(os.path.relpath(target, self.page)))

    def describe(self, paths: Iterable[str | Path], root: Path) -> list[dict[str, Any]]:
        """Return path, link and SHA-256 of files; None for those that cannot be read."""
        return [
            dict(path=path, href=self.href(path, root), sha256=self._hash(_absolute(root / path)))
            for path in dict.fromkeys(map(str, paths))
        ]

    def link(self, label: str, path: str, root: Path) -> dict[str, Any]:
        """Return a link by its label, or a label that says where the file is or was."""
        href, exists = self.href(path, root), os.path.isfile(_absolute(root / path))
        if href is None:
            label += f": {path}" if exists else f" (gone: {path})"
        return dict(label=label, href=href, exists=exists)


def _sha256(path: Path) -> str | None:
    known = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                known.update(block)
    except (OSError, ValueError):
        return None
    return known.hexdigest()


def _absolute(path: Path) -> Path:
    # Symbolic links stay: a folder of runs may lie on another disk.
    return Path(os.path.abspath(path))


class Names:
    """Unique names for places in a page and for files."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, text: str) -> str:
        """Return a name of letters, digits, ``.``, ``_`` and ``-``."""
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:120] or "x"
        name, number = base, 1
        while name.lower() in self._used:  # of files too, where case may not count
            number += 1
            name = f"{base}-{number}"
        self._used.add(name.lower())
        return name


class Rendered(NamedTuple):
    """A drawing as files."""

    drawing: Drawing
    stem: str  # of their names
    svg: bytes
    png: bytes

    def write(self, folder: str | Path) -> list[Path]:
        """Write the files."""
        paths = [Path(folder, f"{self.stem}.{kind}") for kind in ("svg", "png")]
        for path, content in zip(paths, (self.svg, self.png), strict=True):
            write_bytes(path, content)
        return paths


def render_figures(
    experiments: Sequence[Experiment], figures: Mapping[str, ModuleType]
) -> Iterator[tuple[Experiment | None, Rendered | str]]:
    """Draw figures of experiments, and those of no experiment; one that fails stops no other.

    Yield drawings, or why a figure cannot be drawn.
    """
    stems = Names()
    tasks: list[tuple[str, Experiment | None]] = [
        (name, each) for each in experiments for name in figures if figures[name].NEEDS
    ]
    tasks += [(name, None) for name in figures if not figures[name].NEEDS]
    for name, experiment in tasks:
        try:
            with style():
                drawings = figures[name].draw(*filter(None, [experiment]))
            for drawing in drawings:
                stem = stems(drawing.name)
                made_by = _commands(name, experiment)
                yield experiment, Rendered(drawing, stem, *_render(drawing, stem, made_by))
        except Exception as error:
            text = " ".join(str(error).split())
            expected = isinstance(error, (ValueError, OSError))
            kind = "" if expected else f"{type(error).__name__}: "
            yield experiment, f"figure {name}: {kind}{text}"


def _commands(figure: str, experiment: Experiment | None) -> str:
    """Return the commands that make a figure."""
    if experiment is None:
        return f"python tools/report.py --figure {figure}"
    draw = f"python tools/report.py RESULTS --figure {figure}"
    draw += f" --experiment {shlex.quote(experiment.key)}"
    return f"{shlex.join(experiment.record['command'])}; {draw}"


def _render(drawing: Drawing, salt: str, made_by: str) -> tuple[bytes, bytes]:
    """Return a figure as SVG, the same bytes for the same figure, and as PNG.

    Both carry title, caption and commands, which a picture that is passed on would be without.
    """
    written = []
    texts = {"Title": drawing.title, "Description": f"{drawing.caption} Made by: {made_by}"}
    texts = {key: _NO_XML.sub("\ufffd", text) for key, text in texts.items()}
    # Letters are drawn as outlines: an image in a page has no fonts but the reader's.
    with style(), matplotlib.rc_context({"svg.hashsalt": salt}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            drawing.figure.savefig(
                buffer, format=kind, dpi=200, facecolor="white", metadata={**metadata, **texts}
            )
            written.append(buffer.getvalue())
    return written[0], written[1]


def embed(rendered: Rendered, root: Path, files: Files) -> dict[str, Any]:
    """Return a figure as the template takes it."""
    drawing, svg = rendered.drawing, rendered.svg
    # As an image and not as elements: names cannot clash, and nothing in it runs.
    kind, data = ("svg+xml", svg) if len(svg) <= _LARGEST_SVG else ("png", rendered.png)
    width, height = (round(96 * inches) for inches in drawing.figure.get_size_inches())
    numbers = json.dumps(drawing.numbers, indent=1, default=_plain) if drawing.numbers else ""
    if len(numbers) > _LONGEST:
        numbers = f"{numbers[:_LONGEST]}\n... cut off here"
    return dict(
        drawing=drawing,
        image=f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        width=width,
        height=height,
        numbers=numbers,
        sources=files.describe(drawing.sources, root),
    )


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)

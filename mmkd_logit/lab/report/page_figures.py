"""The figures of the page, and the files behind its numbers."""

import base64
import hashlib
import importlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import matplotlib

from mmkd_logit.utils.files import write_bytes

from .data import ExperimentFile
from .style import style


class Files:
    """Names files for a report that lies in a folder.

    A link is relative, leads to a file that is there, and stays in a folder that the report lies
    in too: where the runs were made, or that of the results. Anything else is only named.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = _absolute(folder), _absolute(results)
        self._hashes: dict[Path, str | None] = {}

    def href(self, path: str | Path, root: Path) -> str | None:
        """Return the link to a file, or None."""
        target = _absolute(root / path)
        bases = [_absolute(root), self.results]
        if not any(target.is_relative_to(b) and self.folder.is_relative_to(b) for b in bases):
            return None
        if not os.path.isfile(target):
            return None
        # Also the colon is quoted: a file may be called as a protocol is.
        return quote(os.fsencode(os.path.relpath(target, self.folder)))

    def describe(self, paths: Iterable[str | Path], root: Path) -> list[dict[str, Any]]:
        """Return path, link and SHA-256 of files; None for those that cannot be read."""
        return [
            dict(path=path, href=self.href(path, root), sha256=self._hash(_absolute(root / path)))
            for path in dict.fromkeys(map(str, paths))
        ]

    def link(self, label: str, path: str | None, root: Path) -> list[dict[str, Any]]:
        """Return a link by what it is called, or one that says where the file is or was."""
        if path is None:
            return []
        href = self.href(path, root)
        if href is None:
            there = self.exists(path, root)
            label = f"{label}: {path}" if there else f"{label} (gone: {path})"
        return [dict(label=label, href=href)]

    def exists(self, path: str, root: Path) -> bool:
        """Say whether a file is there."""
        return os.path.isfile(_absolute(root / path))

    def _hash(self, path: Path) -> str | None:
        if path not in self._hashes:
            self._hashes[path] = _sha256(path) if os.path.isfile(path) else None
        return self._hashes[path]


def _sha256(path: Path) -> str | None:
    known = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                known.update(block)
    except OSError:
        return None
    return known.hexdigest()


def _absolute(path: Path) -> Path:
    # Symbolic links stay: a folder of runs may lie on another disk.
    return Path(os.path.normpath(Path.cwd() / path))


class Names:
    """Hands out names for places in a page and for files, each once."""

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


# Figures in a report: inside it as images, and beside it as files.


if TYPE_CHECKING:
    from .style import Drawing

# Takes experiments, where the first's runs were made, and a list for what cannot be drawn.
Draw = Callable[[Sequence[ExperimentFile], Path, list[str]], Sequence["Drawing"]]

_LARGEST_SVG = 1_500_000  # bytes; clouds of points are lighter as pixels
_LONGEST = 200_000  # characters of the numbers drawn


class Figures(NamedTuple):
    """The figures of a report, each with the key of its experiment or None.

    Attributes:
        shown: What the template takes.
        missing: Lines about those that could not be drawn.
        problem: What went wrong with all of them, or nothing.
    """

    shown: list[tuple[str | None, dict[str, Any]]]
    missing: list[tuple[str | None, str]]
    problem: str


def show_figures(
    experiments: Sequence[ExperimentFile], draw: Draw | None, files: Files, names: Names
) -> Figures:
    """Draw figures, write them to ``RESULTS/figures`` and prepare them for the page.

    One that fails takes no other with it. Where the files cannot be written the page has the
    figures all the same.
    """
    notes: list[str] = []
    problems: list[str] = []
    drawings: Sequence[Drawing] = []
    try:
        draw = draw or importlib.import_module(f"{__package__}.command").draw_all
        drawings = draw(experiments, experiments[0].root, notes)
    except Exception as error:
        problems.append(f"The figures could not be drawn: {_one_line(error)}")
    keys = {f"{experiment.path}, ": experiment.key for experiment in experiments}
    missing = [_split(note, keys) for note in notes]
    view = _FigureView(experiments, files, names)
    shown = []
    for drawing in drawings:
        key = drawing.experiment if drawing.experiment in keys.values() else None
        try:
            shown.append((key, view.show(drawing)))
        except Exception as error:
            missing.append((key, f"figure {drawing.name}: {_one_line(error)}"))
    if view.unwritten:
        problems.append(f"The figures are on the page alone: {view.unwritten}")
    return Figures(shown, missing, " ".join(problems))


def _split(note: str, keys: dict[str, str]) -> tuple[str | None, str]:
    """Split a line into the experiment that it is about and the rest."""
    for start, key in keys.items():
        if note.startswith(start):
            return key, note.removeprefix(start)
    return None, note


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class _FigureView:
    def __init__(self, experiments: Sequence[ExperimentFile], files: Files, names: Names) -> None:
        self.roots: dict[str | None, Path] = {each.key: each.root for each in experiments}
        self.root = experiments[0].root
        self.files, self.names, self.stems = files, names, Names()
        self.unwritten = ""

    def show(self, drawing: "Drawing") -> dict[str, Any]:
        """Return what the template takes."""
        stem = self.stems(drawing.name)
        svg, png = render_figure(drawing, stem)
        # As an image and not as elements: names cannot clash, and nothing in it runs.
        kind, data = ("svg+xml", svg) if len(svg) <= _LARGEST_SVG else ("png", png)
        width, height = (round(96 * inches) for inches in drawing.figure.get_size_inches())
        return dict(
            id=self.names(f"figure-{drawing.name}"),
            title=drawing.title,
            caption=drawing.caption,
            paper=drawing.paper,
            image=f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
            width=width,
            height=height,
            files=self._write(stem, dict(svg=svg, png=png)),
            numbers=_numbers(drawing.numbers),
            sources=self.files.describe(
                drawing.sources, self.roots.get(drawing.experiment, self.root)
            ),
        )

    def _write(self, stem: str, contents: dict[str, bytes]) -> list[dict[str, Any]]:
        links = []
        for kind, content in contents.items():
            path = Path("figures", f"{stem}.{kind}")
            try:
                write_bytes(self.files.results / path, content)
            except OSError as error:
                self.unwritten = str(error)
                return []
            links += self.files.link(kind.upper(), str(path), self.files.results)
        return links


# What XML cannot hold, though a string of a JSON file can.
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_figure(drawing: "Drawing", salt: str) -> tuple[bytes, bytes]:
    """Return a figure as SVG, the same bytes for the same figure, and as PNG.

    Both carry title and caption, which a picture that is passed on would be without.
    """
    written = []
    told = {"Title": drawing.title, "Description": drawing.caption}
    told = {key: _NO_XML.sub("\ufffd", text) for key, text in told.items()}
    # Letters are drawn as outlines: an image in a page has no fonts but the reader's.
    with style(), matplotlib.rc_context({"svg.hashsalt": salt}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            drawing.figure.savefig(
                buffer, format=kind, dpi=200, facecolor="white", metadata={**metadata, **told}
            )
            written.append(buffer.getvalue())
    return written[0], written[1]


def _numbers(numbers: dict[str, Any]) -> str:
    if not numbers:
        return ""
    text = json.dumps(numbers, indent=1, default=_plain)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n... cut off here"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)

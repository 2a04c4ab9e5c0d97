"""Every figure that the files of some exhibits allow."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from ._report_read import ExhibitFile
from .drawing import Drawing
from .style import style

# Modules with ``draw(exhibit) -> list[Drawing]``: none where the exhibit is not of their kind.
PARTS = (
    "grid",
    "logit_sums",
    "distances",
    "templates",
    "label_noise",
    "calibration",
    "learning_curves",
    "class_sums",
)


def draw_all(
    exhibits: Sequence[ExhibitFile], root: Path | None = None, notes: list[str] | None = None
) -> list[Drawing]:
    """Draw all figures.

    Args:
        exhibits: As read from a folder of results.
        root: Not used: each exhibit knows where its runs were made.
        notes: Gets a line for each figure that lacks its files or could not be drawn, which begins
            with the path of its exhibit; without it such an error is raised.

    Returns:
        The figures: those of each exhibit in the order of the paper's, then those of none.

    Raises:
        ValueError: If a file cannot be read and nobody takes notes.
    """
    drawings: list[Drawing] = []
    with style():
        for exhibit in exhibits:
            for name in PARTS:
                drawings += _draw(name, (exhibit,), f"{exhibit.path}, ", notes)
        drawings += _draw("losses", (), "", notes)
    return drawings


def _draw(name: str, given: tuple, where: str, notes: list[str] | None) -> list[Drawing]:
    """Draw one part; where somebody takes notes, a part that fails takes no other with it."""
    try:
        return importlib.import_module(f"{__package__}.figure_{name}").draw(*given)
    except Exception as error:
        if notes is None:
            raise
        text = " ".join(str(error).split())
        known = isinstance(error, (ValueError, OSError))
        what = text if known else f"{type(error).__name__}: {text}"
        notes.append(f"{where}figure {name}: {what}")
        return []

"""A figure with what a reader needs to trust it."""

from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure


@dataclass
class Drawing:
    """One figure of a report.

    Attributes:
        name: Of its files.
        title: Of it.
        caption: One or two sentences: what is drawn, units, n, protocol.
        figure: The picture.
        sources: The files it was drawn from, seen from where the runs were made.
        paper: What the paper shows there.
        exhibit: The exhibit it belongs to, ``SCALE/NAME`` or ``NAME``; None for none.
        numbers: What was drawn or computed, for whoever checks it.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    sources: list[str] = field(default_factory=list)
    paper: str = ""
    exhibit: str | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

"""A figure with what a reader needs to trust it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
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

    def pixels(self, dpi: float = 120) -> np.ndarray:
        """Return the picture as red, green and blue, (H, W, 3), uint8.

        Args:
            dpi: Pixels an inch.
        """
        self.figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

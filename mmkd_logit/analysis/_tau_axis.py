"""A logarithmic axis of tau on which 0 and infinity have places, and what has no tau."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes


class TauAxis:
    """Gives temperatures their places.

    Args:
        taus: All that will be drawn, from 0 to infinity.
        others: What is set beside them, to the right.
        ticks: Temperatures that are written, if not all.
    """

    def __init__(
        self,
        taus: Iterable[float],
        others: Sequence[str] = (),
        ticks: Sequence[float] | None = None,
    ) -> None:
        self.taus = sorted(set(taus))
        self._ticks = self.taus if ticks is None else list(ticks)
        inner = [tau for tau in self.taus if 0 < tau < math.inf] or [1.0]
        self._low, self._high = inner[0], inner[-1]
        self._gap = 10 ** max(0.3, 0.13 * math.log10(self._high / self._low))
        right = self._high
        self._places: dict[Any, float] = {tau: tau for tau in inner}
        if 0 in self.taus:
            self._places[0] = self._low / self._gap
        for each in [*[math.inf] * (math.inf in self.taus), *others]:
            right *= self._gap
            self._places[each] = right
        self._others = list(others)
        self._right = right

    def place(self, what: float | str) -> float:
        """Return where something stands.

        Args:
            what: A temperature or one of the others.
        """
        return self._places[what]

    def curve(
        self, axes: Axes, taus: Sequence[float], mean: np.ndarray, std: np.ndarray, **style: Any
    ) -> None:
        """Draw a curve with its band; what leads over a break is dotted.

        Args:
            axes: The panel.
            taus: Ascending.
            mean: There; NaN where there is none.
            std: There; NaN for no band.
            **style: Of the line.
        """
        x = np.array([self.place(tau) for tau in taus])
        inner = np.array([0 < tau < math.inf for tau in taus])
        axes.plot(x[inner], mean[inner], zorder=2, **style)
        dotted = {**style, "linestyle": (0, (1, 2)), "label": None, "lw": 1}
        for i in range(len(x) - 1):
            if not (inner[i] and inner[i + 1]):
                axes.plot(x[i : i + 2], mean[i : i + 2], zorder=2, **dotted)
        color = style.get("color")
        axes.fill_between(x, mean - std, mean + std, color=color, alpha=0.16, lw=0, zorder=1)

    def dress(self, axes: Axes) -> None:
        """Set scale, ticks and limits, and break the axis where it is broken.

        Args:
            axes: The panel.
        """
        axes.set_xscale("log")
        left = self.place(self.taus[0]) if self.taus else self._low
        axes.set_xlim(left / self._gap**0.9, self._right * self._gap**0.5)
        labels = ["∞" if tau == math.inf else f"{tau:g}" for tau in self._ticks]
        places = [*map(self.place, self._ticks), *map(self.place, self._others)]
        axes.set_xticks(places, [*labels, *self._others])
        axes.minorticks_off()
        axes.set_xlabel("τ, temperature of KL")
        for end, edge in ((0, self._low), (math.inf, self._high)):
            if end in self._places and len(self.taus) > 1:
                _break(axes, math.sqrt(edge * self.place(end)))
        if self._others:
            border = self.place(self._others[0]) / self._gap**0.5
            axes.axvline(border, color="#bdbdbd", lw=0.8, zorder=0)


def _break(axes: Axes, x: float) -> None:
    """Strike the axis through."""
    axes.annotate(
        "//",
        (x, 0),
        xycoords=axes.get_xaxis_transform(),
        ha="center",
        va="center",
        fontsize=8,
        annotation_clip=False,
        bbox=dict(boxstyle="square,pad=0.05", fc="white", ec="none"),
    )

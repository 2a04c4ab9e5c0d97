"""What runs logged, over epochs, and its mean over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Curve(NamedTuple):
    """Something over epochs.

    Attributes:
        epochs: Ascending.
        mean: Over seeds, there; what is no number for one seed is none for all.
        std: Sample standard deviation, or NaN for one seed.
        n: Seeds.
    """

    epochs: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    n: int


def by_epoch(scalars: Scalars, name: str, last: bool = False) -> dict[float, float]:
    """Return one value for each epoch of training, by its end.

    Args:
        scalars: Of a run, which logged by iteration.
        name: Of what is asked for.
        last: Whether the epoch's last log line tells of all of it; else its lines are averaged.

    Raises:
        ValueError: If the run did not log which epoch it was in.
    """
    steps, values = scalars[name]
    epochs = _epochs_at(scalars, steps)
    found: dict[float, float] = {}
    for epoch in np.unique(epochs):
        here = values[epochs == epoch]
        found[float(epoch)] = float(here[-1] if last else here.mean())
    return found


def by_iteration(scalars: Scalars, name: str, per_epoch: float | None) -> dict[float, float]:
    """Return every value that was logged in training, by the epoch as a broken number.

    Args:
        scalars: Of a run, which logged by iteration.
        name: Of what is asked for.
        per_epoch: Iterations of an epoch, where they are known; else the fewest that the log
            allows, which are wrong by less than the distance of two log lines.

    Raises:
        ValueError: If the run did not log which epoch it was in.
    """
    steps, values = scalars[name]
    epochs = _epochs_at(scalars, steps)
    if per_epoch is None:
        per_epoch = float(np.ceil((steps / epochs).max()))
    places = np.clip(steps / per_epoch, epochs - 1, epochs)
    return dict(zip(places.tolist(), values.tolist(), strict=True))


def by_validation(scalars: Scalars, name: str) -> dict[float, float]:
    """Return what was logged after epochs.

    Args:
        scalars: Of a run.
        name: Of what is asked for.
    """
    steps, values = scalars[name]
    return dict(zip(steps.astype(float).tolist(), values.tolist(), strict=True))


def _epochs_at(scalars: Scalars, steps: np.ndarray) -> np.ndarray:
    """Return the epochs, from 1 on, that iterations were in."""
    if "epoch" not in scalars:
        raise ValueError(
            "the scalars lack 'epoch', which MMEngine logs in training; these are of a validation"
        )
    known, epochs = scalars["epoch"]
    place = np.searchsorted(known, steps)
    if place.max(initial=0) >= len(known) or not np.array_equal(known[place], steps):
        raise ValueError("some lines of the scalars lack 'epoch', which MMEngine logs in training")
    return epochs[place]


def over_seeds(runs: Sequence[Mapping[float, float]]) -> Curve | None:
    """Average over seeds, where all of them have a value; None if they share no epoch.

    Args:
        runs: Of each seed the values by epoch.
    """
    runs = [run for run in runs if run]
    shared = sorted(set(runs[0]).intersection(*runs[1:])) if runs else []
    if not shared:
        return None
    values = np.array([[run[epoch] for epoch in shared] for run in runs], float)
    values[~np.isfinite(values)] = np.nan
    std = values.std(0, ddof=1) if len(runs) > 1 else np.full(len(shared), np.nan)
    return Curve(np.array(shared), values.mean(0), std, len(runs))

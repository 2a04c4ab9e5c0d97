"""Random numbers that belong to a sample, whoever asks for them and in whatever order.

They are the raw output of PCG64, which numpy promises never to change; of its distributions
(``Generator.permutation`` and the like) it promises nothing.
"""

from typing import Any

import numpy as np

# What the numbers are for; under one seed the streams know nothing of each other.
WHICH_CHANGE, NEW_LABEL, WHICH_STAY, WHICH_CLASSES = range(4)


def check_seed(seed: Any) -> int:
    """Return the seed as an int.

    Raises:
        ValueError: If it is no integer from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an integer from 0 on, got {seed!r}")
    return int(seed)


def check_share(name: str, value: Any) -> float:
    """Return a share as a float.

    Raises:
        ValueError: If it is no number in [0, 1].
    """
    number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not number or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
    return float(value)


def draw(seed: int, stream: int, count: int) -> np.ndarray:
    """Return uint64 numbers, the i-th of which depends on seed, stream and i alone.

    Args:
        seed: From 0 on.
        stream: One of the constants above.
        count: How many.
    """
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))).random_raw(count)


def first_of_groups(groups: np.ndarray, share: float, seed: int, stream: int) -> np.ndarray:
    """Choose a share of each group at random; a smaller share is contained in a larger one.

    Args:
        groups: Group of each sample (N,).
        share: In [0, 1]; of a group of n samples ``floor(share * n + 1/2)`` are chosen.
        seed: From 0 on.
        stream: One of the constants above.

    Returns:
        Booleans (N,).
    """
    order = np.lexsort((draw(seed, stream, len(groups)), groups))
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rank = np.arange(len(groups)) - np.repeat(starts, sizes)
    chosen = np.empty(len(groups), dtype=bool)
    # The small number forgives what 0.1 * 5 and the like lack in binary.
    chosen[order] = rank < np.repeat(np.floor(share * sizes + 0.5 + 1e-9), sizes)
    return chosen

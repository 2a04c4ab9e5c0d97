"""What to read, and by which randomness."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np


class SampleKey(NamedTuple):
    """A sample and what its augmentation is a function of; :class:`SeededSampler` yields them.

    Attributes:
        seed: Of the run.
        epoch: How often the data were gone through before.
        idx: Of the data set that the loader reads.
    """

    seed: int
    epoch: int
    idx: int


class _Keys(NamedTuple):
    """The keys of a batch of N samples.

    Attributes:
        source: Seed and epoch of each (2, N), int64; None where plain indices were given.
        idx: Of the data set that is asked (N,), int64.
    """

    source: np.ndarray | None
    idx: np.ndarray


def read_keys(keys: Sequence[Any]) -> _Keys:
    """Read what a sampler yielded for a batch.

    Args:
        keys: N :class:`SampleKey`, or N integers.

    Raises:
        ValueError: If they are mixed, or something else.
    """
    kinds = set(map(type, keys))
    if SampleKey not in kinds:
        idx = np.asarray(keys)
        if idx.size and idx.dtype.kind not in "iu":
            raise ValueError(f"samples are asked for by integers or SampleKey, got {keys!r}")
        return _Keys(None, idx.astype(np.int64))
    if len(kinds) > 1:
        raise ValueError("a batch has keys with a seed and keys without; use one sampler")
    table = np.fromiter(chain.from_iterable(keys), np.int64, 3 * len(keys)).reshape(-1, 3)
    return _Keys(table[:, :2].T, table[:, 2])

"""Keys of samples, and random draws as functions of (seed, epoch, sample)."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info

from mmkd_logit.utils.arguments import check_count


class SampleKey(NamedTuple):
    """A sample and what its augmentation is a function of; :class:`SeededSampler` yields them."""

    seed: int  # of the run
    epoch: int  # number of passes through the data before
    idx: int  # in the data set that the loader reads


class Keys(NamedTuple):
    """The keys of a batch of N samples."""

    source: np.ndarray | None  # seed and epoch of each (2, N), int64; None for plain indices
    idx: np.ndarray  # in the data set that is asked (N,), int64


def read_keys(keys: Sequence[Any]) -> Keys:
    """Read what a sampler yielded for a batch: all ``SampleKey`` or all integers."""
    kinds = set(map(type, keys))
    if SampleKey not in kinds:
        idx = np.asarray(keys)
        if idx.size and idx.dtype.kind not in "iu":
            raise ValueError(f"samples are asked for by integers or SampleKey, got {keys!r}")
        return Keys(None, idx.astype(np.int64))
    if len(kinds) > 1:
        raise ValueError("a batch has keys with a seed and keys without; use one sampler")
    table = np.fromiter(chain.from_iterable(keys), np.int64, 3 * len(keys)).reshape(-1, 3)
    return Keys(table[:, :2].T, table[:, 2])


# Augmentation: a hash of (seed, epoch, sample) instead of a stream.
#
# The definition is frozen: the pictures of every run depend on it. It is the finaliser of
# SplitMix64 (G. L. Steele Jr., D. Lea, C. H. Flood, "Fast splittable pseudorandom number
# generators", OOPSLA 2014; constants of D. Stafford's Mix13), which absorbs the three words one
# after another and is then read as SplitMix64 is.

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_HALF, _TO_53 = np.uint64(32), np.uint64(11)


def counter_bits(words: np.ndarray, count: int) -> np.ndarray:
    """Return random bits that depend on the words alone."""
    state = np.zeros(words.shape[1], dtype=np.uint64)
    for word in words.astype(np.uint64):
        state = _mix(state + _STEP + word)
    steps = _STEP * np.arange(1, count + 1, dtype=np.uint64)
    return _mix(state + steps[:, None])


def _mix(bits: np.ndarray) -> np.ndarray:
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        bits = (bits ^ (bits >> shift)) * factor
    return bits ^ (bits >> _SHIFTS[2])


def below(bits: np.ndarray, number: int) -> np.ndarray:
    """Turn random bits into integers in ``[0, number)``; biased by less than number / 2**32."""
    return (((bits >> _HALF) * np.uint64(number)) >> _HALF).astype(np.int64)


def unit(bits: np.ndarray) -> np.ndarray:
    """Turn random bits into float64 in [0, 1)."""
    return (bits >> _TO_53).astype(np.float64) * 2.0**-53


# Label noise and subsets: numbers that belong to a sample, in whatever order they are read.
#
# They are the raw output of PCG64, which NumPy promises never to change; of its distributions
# (``Generator.permutation`` and the like) it promises nothing.

# Independent streams under one seed, by what the numbers are for.
WHICH_CHANGE, NEW_LABEL, WHICH_STAY, WHICH_CLASSES = range(4)


def check_seed(seed: Any) -> int:
    """Return a seed as an int; None is 0."""
    return 0 if seed is None else check_count("seed", seed, 0)


def check_share(name: str, value: Any) -> float:
    """Return a share as a float."""
    if (
        isinstance(value, (int, float, np.number))
        and not isinstance(value, bool)
        and 0 <= value <= 1
    ):
        return float(value)
    raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")


def draw(seed: int, stream: int, count: int) -> np.ndarray:
    """Return uint64 numbers, the i-th of which depends on seed, stream and i alone."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))).random_raw(count)


def choose_share(
    groups: np.ndarray, share: float, seed: int, stream: int, exact: bool = False
) -> np.ndarray:
    """Choose a share of each group at random; a smaller share is contained in a larger one.

    The numbers of samples are rounded group by group, or, if ``exact``, so that they add up to the
    share of the whole (the divisor method of Webster and Sainte-Lague). Both are the same where
    the rounded numbers add up to it.
    """
    numbers = draw(seed, stream, len(groups))
    order = np.lexsort((numbers, groups))
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rank, size = np.arange(len(groups)) - np.repeat(starts, sizes) + 0.5, np.repeat(sizes, sizes)
    # 1e-9, since products such as 0.29 * 50 are a little less in binary than in decimal.
    chosen = rank <= share * size + 1e-9
    if exact:
        first = np.lexsort((numbers[order], rank / size))
        chosen[first] = np.arange(len(groups)) + 0.5 <= share * len(groups) + 1e-9
    result = np.empty(len(groups), dtype=bool)
    result[order] = chosen
    return result


# Other transforms: the global random generators, seeded for a sample.


@contextmanager
def seeded(seed: int, epoch: int, identity: int) -> Iterator[None]:
    """Seed NumPy's, Python's and torch's CPU generator, and restore their states afterwards.

    In a worker of a loader, where nothing else draws, the states are not restored.
    """
    words = np.array([[seed], [epoch], [identity]], dtype=np.int64)
    for_numpy, for_random, for_torch = counter_bits(words, 3)[:, 0].tolist()
    worker = get_worker_info() is not None
    states = None if worker else (np.random.get_state(), random.getstate(), torch.get_rng_state())
    np.random.seed([for_numpy & 0xFFFFFFFF, for_numpy >> 32])
    random.seed(for_random)
    torch.default_generator.manual_seed(for_torch >> 1)
    try:
        yield
    finally:
        if states is not None:
            np.random.set_state(states[0])
            random.setstate(states[1])
            torch.set_rng_state(states[2])

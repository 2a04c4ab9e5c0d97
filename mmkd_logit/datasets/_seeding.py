"""The global random generators, made to depend on a sample."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ._counter_hash import counter_bits


@contextmanager
def seeded(seed: int, epoch: int, identity: int) -> Iterator[None]:
    """Seed numpy, random and torch's CPU generator from three numbers.

    Afterwards they are as they were, but in a loader's worker, where nobody else draws.

    Args:
        seed: Of the run.
        epoch: From 0 on.
        identity: Of the sample.
    """
    words = np.array([[seed], [epoch], [identity]], dtype=np.int64)
    for_numpy, for_random, for_torch = counter_bits(words, 3)[:, 0].tolist()
    alone = get_worker_info() is not None
    states = None if alone else (np.random.get_state(), random.getstate(), torch.get_rng_state())
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

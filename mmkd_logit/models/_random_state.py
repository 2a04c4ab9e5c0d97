"""Leave the random generators as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's (CPU and every CUDA device's) generators on exit.

    Building a network draws numbers even when its weights are loaded afterwards; without this a
    run with a teacher would shuffle and augment differently from one without.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

"""The random generators of a process, in and out of a checkpoint."""

import random
from typing import Any

import numpy as np
import torch


def capture_random_states() -> dict[str, Any]:
    """Copy the states of Python's, NumPy's and torch's generators (CPU and this GPU).

    Returns:
        Tensors and numbers, which ``weights_only`` reads.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    states = dict(
        python=torch.tensor(words, dtype=torch.int64),
        python_more=[version, gauss],
        numpy=torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        numpy_more=[int(position), int(has_gauss), float(cached)],
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Any) -> None:
    """Put the generators into the states of :func:`capture_random_states`.

    Args:
        states: As it gave them; the tensors may lie on any device.

    Raises:
        ValueError: If they are none.
    """
    try:
        version, gauss = states["python_more"]
        random.setstate((version, tuple(states["python"].tolist()), gauss))
        keys = states["numpy"].cpu().numpy().astype(np.uint32)
        position, has_gauss, cached = states["numpy_more"]
        np.random.set_state(("MT19937", keys, int(position), int(has_gauss), float(cached)))
        torch.set_rng_state(states["torch"].cpu())
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"].cpu())
    except Exception as error:  # torch, NumPy and Python each complain in their own way
        raise ValueError(f"the checkpoint's random states are damaged ({error})") from None


def seed_random_states(seed: int, iteration: int, rank: int) -> None:
    """Put the generators into states that follow from three numbers.

    Args:
        seed: Of the run.
        iteration: Of the run, from 0 on.
        rank: Of the process.
    """
    words = np.random.SeedSequence([seed, iteration, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))

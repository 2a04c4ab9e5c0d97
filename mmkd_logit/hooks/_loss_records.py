"""What is kept of the iterations since somebody last looked at their losses."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmkd_logit.datasets.sample_batch import SampleBatch

_SHOWN = 16  # sample numbers in a message
_TERMS = ("ce", "kd")  # beside what has "loss" in its name


class Record(NamedTuple):
    """One iteration.

    Attributes:
        epoch: It belongs to, from 0 on.
        iteration: Its number, from 0 on.
        samples: The batch's annotations, on the host.
        sums: Row sums of logits (N,) on their device, by whose they are: finite where these are.
        terms: The names of what was logged.
    """

    epoch: int
    iteration: int
    samples: Any
    sums: dict[str, Tensor]
    terms: tuple[str, ...] = ()


def row_sums(logits: Tensor) -> Tensor:
    """Return one number a sample that is finite where its logits are.

    Args:
        logits: (N, K).
    """
    return logits.detach().sum(-1, dtype=torch.float32)


def sample_numbers(samples: Any) -> list[str]:
    """Return the numbers of a batch's samples in their data set.

    Args:
        samples: A ``SampleBatch``, or a list of ``DataSample``; of others nothing is known.
    """
    if isinstance(samples, SampleBatch):
        return [str(number) for number in samples.index.tolist()]
    if not isinstance(samples, (list, tuple)):
        return []
    numbers = (sample.get("sample_idx") for sample in samples if hasattr(sample, "get"))
    return ["?" if number is None else str(number) for number in numbers]


def shorten(numbers: list[str]) -> str:
    """Join numbers, the first of many.

    Args:
        numbers: Of samples.
    """
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(numbers[:_SHOWN]) + more


def first_broken(values: np.ndarray) -> int | None:
    """Return the place of the first value that is not finite, or None.

    Args:
        values: (N,).
    """
    broken = np.flatnonzero(~np.isfinite(values))
    return int(broken[0]) if len(broken) else None


def describe_logits(record: Record, prefix: str) -> str:
    """Say whose logits are no numbers, and of which sample first.

    Args:
        record: Of the iteration.
        prefix: Of the student, such as ``'s0/'``, or ``''``.
    """
    numbers = sample_numbers(record.samples)
    broken, fine = [], []
    for whose, sums in record.sums.items():
        if not whose.startswith(prefix):
            continue
        name = whose.removeprefix(prefix)
        values = sums.cpu().numpy()
        first = first_broken(values)
        if first is None:
            fine.append(name)
            continue
        number = numbers[first] if first < len(numbers) else f"number {first} of the batch"
        count = int((~np.isfinite(values)).sum())
        broken.append(f"the {name}'s logits are not finite for {count} of {len(values)} samples, ")
        broken[-1] += f"first sample {number}"
    if broken:
        return "; ".join([*broken, *(f"the {name}'s logits are finite" for name in fine)])
    if fine:
        return f"the logits of the {' and the '.join(fine)} are finite, the loss of them is not"
    return "its logits were not seen"


def describe_terms(scalars: Any, prefix: str, records: Sequence[Record]) -> str:
    """Give the loss terms of an iteration.

    Args:
        scalars: MMEngine's ``log_scalars``.
        prefix: Of the student.
        records: The iteration's and those of all after it, which may have had other terms.
    """
    found = []
    for key in records[0].terms:
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or "/" in name or not ("loss" in name or name in _TERMS):
            continue
        buffer, since = scalars.get(f"train/{key}"), sum(key in each.terms for each in records)
        if buffer is not None and len(buffer.data[0]) >= since:
            found.append(f"{name}={float(buffer.data[0][-since]):.6g}")
    return ", ".join(found)


def broken_entries(state: Any, parameters: Iterable[str]) -> list[str]:
    """Name the weights of a checkpoint that are no numbers.

    Args:
        state: A ``state_dict``, on the CPU.
        parameters: Names of those that are parameters; other tensors, such as masks, may hold
            infinity but for BatchNorm's statistics.
    """
    strict = set(parameters)
    found = []
    for name, value in state.items() if isinstance(state, dict) else ():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        finite = name in strict or name.endswith(("running_mean", "running_var"))
        if not torch.isfinite(value).all() if finite else torch.isnan(value).any():
            found.append(name)
    return found

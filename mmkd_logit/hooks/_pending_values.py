"""Logged values that stay on their device until somebody reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ._lazy_history import LazyHistory


class PendingValues:
    """What buffers are still to be given, in the order in which it came."""

    def __init__(self) -> None:
        # For each buffer numbers, or where among the tensors of one kind its value stands.
        self._entries: dict[int, tuple[LazyHistory, list]] = {}
        self._rows: dict[tuple, list[Tensor]] = {}

    def add(self, values: Iterable[tuple[LazyHistory, int | float | Tensor]]) -> None:
        """Keep values, or copies of them, with one operation for each device and dtype.

        Args:
            values: Numbers, and tensors of one element each.
        """
        members: dict[tuple, list[Tensor]] = {}
        for buffer, value in values:
            entry: Any = value
            if isinstance(value, Tensor):
                kind = (value.device, value.dtype)
                group = members.setdefault(kind, [])
                entry = (kind, len(self._rows.get(kind, ())), len(group))
                group.append(value.detach().reshape(()))
            self._entries.setdefault(id(buffer), (buffer, []))[1].append(entry)
        for kind, group in members.items():
            # A copy: compiled with CUDA graphs, the next step overwrites what this one returned.
            self._rows.setdefault(kind, []).append(torch.stack(group))

    def flush(self) -> None:
        """Give the buffers their values: one transfer for each device and dtype."""
        entries, pending = self._entries, self._rows
        self._entries, self._rows = {}, {}
        rows = {kind: _to_lists(tensors) for kind, tensors in pending.items()}
        for buffer, mine in entries.values():
            values = (rows[e[0]][e[1]][e[2]] if isinstance(e, tuple) else e for e in mine)
            buffer.extend(list(values))


def _to_lists(rows: list[Tensor]) -> list[list]:
    values = iter(torch.cat(rows).tolist())
    return [[next(values) for _ in range(len(row))] for row in rows]

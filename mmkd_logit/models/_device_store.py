"""Rows of logits where the network computes."""

import numpy as np
import torch
from torch import Tensor

from ._logit_store import TOO_LARGE, check_shape


class DeviceStore:
    """Logits (K,) for each of ``size`` numbers, in a tensor on a device.

    Which rows are there is known on the host, so that looking up waits for nothing.

    Args:
        size: How many rows there are.
        num_classes: K.
        dtype: ``'float32'`` or ``'float16'``.
        device: Where the tensor lives.

    Raises:
        ValueError: If the device has not the memory.
    """

    def __init__(self, size: int, num_classes: int, dtype: str, device: torch.device) -> None:
        self.size, self.num_classes, self.dtype = size, num_classes, dtype
        try:
            self._rows = torch.zeros(size, num_classes, dtype=getattr(torch, dtype), device=device)
            self._there = np.zeros(size, bool)
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the former
            raise ValueError(
                f"{device} has no room for a teacher cache of "
                f"{size * num_classes * (4 if dtype == 'float32' else 2) / 2**30:.2f} GiB; set a "
                f"smaller max_gib, or storage='memory' or 'disk' ({error})"
            ) from None

    def get(self, numbers: np.ndarray, device: torch.device) -> tuple[Tensor, np.ndarray]:
        """Look rows up; as :meth:`LogitStore.get`.

        Args:
            numbers: Of the rows (N,).
            device: That of the store.
        """
        known = numbers < self.size
        places = numbers if known.all() else np.where(known, numbers, 0)
        where = torch.from_numpy(places).to(device, non_blocking=True)
        return self._rows.index_select(0, where), known & self._there.take(places)

    def put(self, numbers: np.ndarray, logits: Tensor) -> None:
        """Store rows; as :meth:`LogitStore.put`.

        Args:
            numbers: Of the rows (N,); those from ``size`` on are passed over.
            logits: (N, K), in ``dtype``.

        Raises:
            ValueError: If logits of another number of classes come, or too large ones for
                float16.
        """
        check_shape(logits, len(numbers), self.num_classes)
        if self.dtype == "float16" and not torch.isfinite(logits).all():
            raise ValueError(TOO_LARGE)
        known = np.flatnonzero(numbers < self.size)
        if len(known) < len(numbers):
            chosen = torch.from_numpy(known).to(logits.device, non_blocking=True)
            numbers, logits = numbers[known], logits.index_select(0, chosen)
        where = torch.from_numpy(numbers).to(logits.device, non_blocking=True)
        self._rows.index_copy_(0, where, logits)
        self._there[numbers] = True

    def flush(self, wait: bool = True) -> None:
        """Do nothing; rows are stored at once.

        Args:
            wait: Of no meaning here.
        """

    def filled(self) -> int:
        """Count the rows that are there."""
        return int(np.count_nonzero(self._there))

"""What is known of the samples of a batch, without an object for each."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from .views import Views


@dataclass(frozen=True)
class SampleBatch:
    """The annotations of N samples.

    It stands where mmpretrain has a list of N ``DataSample`` and makes them when they are asked
    for by number or in a loop, the same ones every time. It is no ``Sequence`` for Python, as
    torch and MMEngine take those apart.

    Attributes:
        gt_label: What training sees (N,), int64.
        index: Of the samples in the innermost data set (N,), int64; ``sample_idx`` of each.
        img_shape: Height and width of the pictures.
        clean_label: The true labels (N,), where others were made noisy; on the CPU.
        views: Which pictures these are; None where augmentation cannot be numbered.

    Example:
        >>> batch = SampleBatch(torch.tensor([3, 1]), np.array([7, 9]), (8, 8))
        >>> len(batch), [sample.gt_label.item() for sample in batch]
        (2, [3, 1])
    """

    gt_label: Tensor
    index: np.ndarray
    img_shape: tuple[int, int]
    clean_label: Tensor | None = None
    views: Views | None = None
    _made: list[DataSample] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.gt_label)

    def __getitem__(self, index: int) -> DataSample:
        return self.as_list()[index]

    def __iter__(self) -> Iterator[DataSample]:
        return iter(self.as_list())

    @property
    def labels(self) -> Tensor | None:
        """``gt_label``, or None once there are objects, which others may have changed."""
        return None if self._made else self.gt_label

    def as_list(self) -> list[DataSample]:
        """Return one ``DataSample`` each, with the labels on the device of ``gt_label``."""
        if not self._made:
            self._made.extend(self._make(row) for row in range(len(self)))
        return self._made

    def _make(self, row: int) -> DataSample:
        sample = DataSample(
            metainfo=dict(sample_idx=int(self.index[row]), img_shape=tuple(self.img_shape))
        ).set_gt_label(self.gt_label[row : row + 1])
        if self.clean_label is not None:
            clean = int(self.clean_label[row])
            sample.set_field(clean, "clean_label", field_type="metainfo")
        return sample

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SampleBatch":
        """Return the same with ``gt_label`` on a device.

        Args:
            device: Where to.
            non_blocking: As of ``torch.Tensor.to``.
        """
        return replace(self, gt_label=self.gt_label.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "SampleBatch":
        """Return the same with ``gt_label`` in pinned memory; torch's loader calls this."""
        return replace(self, gt_label=self.gt_label.pin_memory())

"""What the metrics of logits have in common."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from ._collecting import check_collecting
from ._stack import forget


class LogitMetric(BaseMetric):
    """Base of metrics that are computed from a few numbers of each sample.

    The numbers are float64, a row a sample. MMEngine brings the rows of all processes into the
    order of the data set and drops those of samples that a sampler repeats at the end, so that
    several processes give what one gives. A metric that has nothing to measure, as of a teacher
    where there is none, keeps empty rows and returns no keys.

    Args:
        collect_device: ``'cpu'`` or ``'gpu'``, where processes exchange their rows.
        prefix: Stands before the keys in the place of the metric's own.
        collect_dir: Folder to exchange them through; see MMEngine's ``BaseMetric``.

    Raises:
        ValueError: If one is of another kind.
    """

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        check_collecting(collect_device, prefix, collect_dir)
        super().__init__(collect_device, prefix, collect_dir)
        self._names: list[str] | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return type(self).__name__

    @abstractmethod
    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute what is kept of a batch.

        Args:
            samples: N dicts, at least one.

        Returns:
            Each (N,); empty if the metric has nothing to measure.
        """

    @abstractmethod
    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute the metrics.

        Args:
            columns: Those of :meth:`columns_of`, of all samples.
        """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the numbers of a batch.

        Args:
            data_batch: Not looked at.
            data_samples: What the model gave.
        """
        if not data_samples:
            return
        columns = self.columns_of(data_samples)
        if self._names is None:
            self._names = list(columns)
        if self._names != list(columns):
            raise ValueError(
                f"{self.name} got batches of two kinds, with ({', '.join(self._names)}) and with "
                f"({', '.join(columns)}); samples of one data set must all have a teacher's logits "
                "and pre-logits, or none"
            )
        if columns:
            rows = torch.stack([values.double() for values in columns.values()], 1).numpy()
        else:
            rows = np.empty((len(data_samples), 0))
        self.results.extend(rows)

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the metrics of all processes' samples and begin anew.

        Args:
            size: Number of samples in the data set.
        """
        try:
            if 0 < len(self.results) * get_world_size() < size:
                print_log(
                    f"{self.name} is of {len(self.results)} of the {size} samples; the data "
                    "loader leaves some out (drop_last, or its sampler)",
                    "current",
                    logging.WARNING,
                )
            return super().evaluate(size)
        finally:
            self._names = None
            self.results.clear()
            forget()

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Compute the metrics from rows.

        Args:
            results: Of all samples.
        """
        if not results:
            raise ValueError(f"{self.name} got no samples")
        table = np.concatenate(results).reshape(len(results), -1)
        if not table.size:
            return {}
        columns = dict(zip(self._names or [], table.T, strict=True))
        return {key: float(value) for key, value in self.summarize(columns).items()}

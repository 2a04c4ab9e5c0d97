"""What the metrics of logits share."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmkd_logit.utils.arguments import check_choice, check_text


class Parts(NamedTuple):
    """What one process has written.

    Attributes:
        folder: Of its files, which the merging process must see.
        rows: How many there are.
        fields: Type and shape of a row, by name.
    """

    folder: str
    rows: int
    fields: dict[str, tuple[str, tuple[int, ...]]]


# What the metrics take from a batch: stacked, checked, and worked out once for all of them.


HOOK = "mmkd_logit.LogitOutputsHook"

# Several metrics look at one batch, one after the other; what they share is kept until the next
# batch comes. The tensors that a value was made of are held beside it: an id() could come again.
_kept: dict[str, tuple[list, Tensor]] = {}


def forget() -> None:
    """Let go of the last batch."""
    _kept.clear()


def once(name: str, inputs: list, make: Callable[[], Tensor]) -> Tensor:
    """Return what was made of the same objects under the same name, or make it."""
    known, value = _kept.get(name, ([], None))
    if value is not None and len(known) == len(inputs) and all(map(is_, known, inputs)):
        return value
    value = make()
    _kept[name] = inputs, value
    return value


def stacked(samples: Sequence[dict], field: str, metric: str) -> Tensor | None:
    """Stack the vectors that :class:`LogitOutputsHook` leaves in each sample."""
    values = [sample.get(field) for sample in samples]
    missing = sum(value is None for value in values)
    if missing == len(values) and field != "logits":
        return None
    if missing:
        raise ValueError(
            f"{metric} needs {field} in every sample, {missing} of {len(values)} have none; add "
            f"dict(type='{HOOK}') to custom_hooks, which puts them there"
        )
    return once(field, values, lambda: _stack(values, samples, field, metric))


def _stack(values: list[Tensor], samples: Sequence[dict], field: str, metric: str) -> Tensor:
    if not isinstance(values[0], Tensor):
        raise ValueError(
            f"{metric} needs {field} as a tensor of each sample, got {type(values[0]).__name__}"
        )
    try:
        made = torch.stack(values)
    except RuntimeError:  # asking each for its shape first takes longer than this
        made = None
    if made is None or made.ndim != 2 or not made.shape[1]:
        shapes = sorted({tuple(value.shape) for value in values})
        raise ValueError(
            f"{metric} needs one vector of {field} a sample, all of one length, got shapes "
            f"{', '.join(map(str, shapes))}"
        )
    made = made.detach().cpu().double()
    # What is not finite makes the sum so; finite values may too, by their size.
    if not made.sum().isfinite():
        broken = (~made.isfinite()).any(1).nonzero()[:, 0].tolist()
        if broken:
            name = samples[broken[0]].get("sample_idx", f"number {broken[0]} of its batch")
            raise ValueError(
                f"{metric}: the {field} of sample {name} are not finite ({len(broken)} of "
                f"{len(values)} samples of the batch); the network has diverged or its input is "
                "broken"
            )
    return made


def pair(samples: Sequence[dict], metric: str) -> tuple[Tensor, Tensor | None]:
    """Stack the student's and the teacher's logits."""
    logits = logits_of(samples, "student", metric)
    assert logits is not None
    teacher = logits_of(samples, "teacher", metric)
    if teacher is not None and teacher.shape != logits.shape:
        raise ValueError(
            f"{metric} needs a teacher of the student's classes, got teacher_logits for "
            f"{teacher.shape[1]} and logits for {logits.shape[1]}"
        )
    return logits, teacher


def logits_of(samples: Sequence[dict], of: str, metric: str) -> Tensor | None:
    """Stack the logits of one of the two."""
    student = stacked(samples, "logits", metric)
    return stacked(samples, "teacher_logits", metric) if of == "teacher" else student


def log_softmax(logits: Tensor, of: str) -> Tensor:
    """Return the logarithm of the probabilities."""
    return once(f"log_softmax of {of}", [logits], lambda: logits.log_softmax(1))


def labels_of(samples: Sequence[dict], field: str, num_classes: int, metric: str) -> Tensor:
    """Return one label of each sample."""
    values = [sample.get(field) for sample in samples]
    if any(value is None for value in values):
        values = [
            sample.get("gt_label") if value is None else value
            for sample, value in zip(samples, values, strict=True)
        ]
    if any(value is None for value in values):
        raise ValueError(f"{metric} needs a gt_label in every sample")
    labels = once(field, values, lambda: _join(values, metric))
    if labels.is_floating_point():
        raise ValueError(f"{metric} needs integers as labels, got {field} of {labels.dtype}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{metric} needs labels from 0 to {num_classes - 1}, as there are {num_classes} "
            f"logits, got {field} from {int(labels.min())} to {int(labels.max())}"
        )
    return labels


def _join(values: list, metric: str) -> Tensor:
    if all(isinstance(value, int) for value in values):
        return torch.tensor(values)
    if not all(isinstance(value, Tensor) and value.shape == (1,) for value in values):
        values = [torch.as_tensor(value).reshape(-1) for value in values]
        sizes = sorted({len(value) for value in values})
        if sizes != [1]:
            raise ValueError(
                f"{metric} is for one label a sample, got {', '.join(map(str, sizes))} of them"
            )
    labels = torch.cat(values).cpu()
    return labels if labels.is_floating_point() else labels.long()


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the class of each row's largest logit, of equal ones the first."""
    # numpy's is several times as fast on the CPU.
    return once("predicted", [logits], lambda: torch.from_numpy(logits.numpy().argmax(1)))


# Arguments of MMEngine's ``BaseMetric``, which takes them as they come.


def check_collecting(collect_device: Any, prefix: Any, collect_dir: Any) -> None:
    """Check how processes exchange what they measured, and under which name it appears."""
    check_choice("collect_device", collect_device, ("cpu", "gpu"))
    if prefix is not None:
        check_text("prefix", prefix, "text or None")
    if collect_dir is not None:
        check_text("collect_dir", collect_dir, "the name of a folder or None")


# What the metrics of logits have in common.


class LogitMetric(BaseMetric):
    """Base of metrics that are computed from a few numbers of each sample.

    The numbers are float64, a row a sample. MMEngine brings the rows of all processes into the
    order of the data set and drops those of samples that a sampler repeats at the end, so that
    several processes give what one gives. A metric that has nothing to measure, as of a teacher
    where there is none, keeps empty rows and returns no keys.
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
        """Compute what is kept of a batch."""

    @abstractmethod
    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute the metrics."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the numbers of a batch."""
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
        """Return the metrics of all processes' samples and begin anew."""
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
        """Compute the metrics from rows."""
        if not results:
            raise ValueError(f"{self.name} got no samples")
        table = np.concatenate(results).reshape(len(results), -1)
        if not table.size:
            return {}
        columns = dict(zip(self._names or [], table.T, strict=True))
        return {key: float(value) for key, value in self.summarize(columns).items()}

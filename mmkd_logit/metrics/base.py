"""The base of the metrics of logits."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmkd_logit.utils.arguments import check_choice, check_text

_HOOK_HINT = "add dict(type='mmkd_logit.LogitOutputsHook') to custom_hooks, which puts them there"

# Several metrics look at one batch, one after the other, and share what was computed from it. The
# tensors that a value was made of are kept beside it: an id() could come again.
_shared: dict[str, tuple[list, Tensor]] = {}


def shared(name: str, inputs: list, compute: Callable[[], Tensor]) -> Tensor:
    """Return what was computed from the same objects under the same name, or compute it."""
    known, value = _shared.get(name, ([], None))
    if value is None or len(known) != len(inputs) or not all(map(is_, known, inputs)):
        value = compute()
        _shared[name] = inputs, value
    return value


def forget() -> None:
    """Let go of the last batch."""
    _shared.clear()


def log_softmax(logits: Tensor, of: str) -> Tensor:
    """Return the logarithm of the probabilities."""
    return shared(f"log_softmax of {of}", [logits], lambda: logits.log_softmax(1))


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the class of each row's largest logit, the first one of equals."""
    # On a CPU NumPy's argmax is several times as fast as torch's.
    return shared("predicted", [logits], lambda: torch.from_numpy(logits.numpy().argmax(1)))


def check_collecting(collect_device: Any, prefix: Any, collect_dir: Any) -> None:
    """Check arguments of MMEngine's ``BaseMetric``, which does not."""
    check_choice("collect_device", collect_device, ("cpu", "gpu"))
    if prefix is not None:
        check_text("prefix", prefix, "text or None")
    if collect_dir is not None:
        check_text("collect_dir", collect_dir, "the name of a folder or None")


class LogitMetric(BaseMetric):
    """Base of metrics that are computed from a few numbers of each sample.

    The numbers are float64, a row a sample. MMEngine brings the rows of all processes into the
    order of the data set and drops those of samples that a sampler repeats at the end, so that
    several processes give what one gives. A metric that has nothing to measure, as of a teacher
    where there is none, keeps empty rows and returns no keys.

    Attributes:
        needs_logits: Whether it is of the student's logits; test-time augmentation leaves none.

    Raises:
        ValueError: When evaluating, if there are no samples, or some have no ``logits``, such that
            are not finite or of other classes than the teacher's, or no single label among the
            classes.
    """

    needs_logits = True

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        check_collecting(collect_device, prefix, collect_dir)
        super().__init__(collect_device, prefix, collect_dir)
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return type(self).__name__

    @abstractmethod
    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute what is kept of a batch of N samples, (N,) by name."""

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute the metrics of all samples: the mean of each column."""
        return {key: values.mean() for key, values in columns.items()}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the numbers of a batch."""
        if not data_samples:
            return
        columns = self.columns_of(data_samples)
        if self._columns is None:
            self._columns = list(columns)
        if self._columns != list(columns):
            raise ValueError(
                f"{self.name} got batches of two kinds, with ({', '.join(self._columns)}) and "
                f"with ({', '.join(columns)}); samples of one data set must all have a teacher's "
                "logits and pre-logits, or none"
            )
        rows = np.empty((len(data_samples), len(columns)))
        for place, values in enumerate(columns.values()):
            rows[:, place] = values.numpy()
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
            self._columns = None
            self.results.clear()
            forget()

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Compute the metrics from rows."""
        if not results:
            raise ValueError(f"{self.name} got no samples")
        table = np.concatenate(results).reshape(len(results), -1)
        if not table.size:
            return {}
        columns = dict(zip(self._columns or [], table.T, strict=True))
        return {key: float(value) for key, value in self.summarize(columns).items()}

    # What the metrics read from a batch.

    def vectors_of(self, samples: Sequence[dict], field: str) -> Tensor | None:
        """Stack one finite vector a sample in float64; None where no sample has the field."""
        values = [sample.get(field) for sample in samples]
        missing = sum(value is None for value in values)
        if missing == len(values) and field not in ("logits", "pred_score"):
            return None
        if missing:
            hint = "the model's head gives none" if field == "pred_score" else _HOOK_HINT
            raise ValueError(
                f"{self.name} needs {field} in every sample, {missing} of {len(values)} have "
                f"none; {hint}"
            )
        return shared(field, values, lambda: self._stack(values, samples, field))

    def _stack(self, values: list[Tensor], samples: Sequence[dict], field: str) -> Tensor:
        try:
            stacked = torch.stack(values)
        except (RuntimeError, TypeError):  # comparing the shapes first takes longer than this
            stacked = None
        if stacked is None or stacked.ndim != 2 or not stacked.shape[1]:
            found = {str(tuple(getattr(value, "shape", ["no tensor"]))) for value in values}
            raise ValueError(
                f"{self.name} needs one vector of {field} a sample, all tensors of one length, got "
                f"shapes {', '.join(sorted(found))}"
            )
        stacked = stacked.detach().cpu().double()
        # Any value that is not finite makes the sum so; large finite ones may do so, too.
        if not stacked.sum().isfinite():
            broken = (~stacked.isfinite()).any(1).nonzero()[:, 0].tolist()
            if broken:
                index = samples[broken[0]].get("sample_idx", f"number {broken[0]} of its batch")
                raise ValueError(
                    f"{self.name}: the {field} of sample {index} are not finite ({len(broken)} of "
                    f"{len(values)} samples of the batch); the network has diverged or its input "
                    "is broken"
                )
        return stacked

    def logits_of(self, samples: Sequence[dict], of: str = "student") -> Tensor | None:
        """Stack the logits of the student or of the teacher; None where there is no teacher."""
        student = self.vectors_of(samples, "logits")
        return student if of == "student" else self.vectors_of(samples, "teacher_logits")

    def logit_pair(self, samples: Sequence[dict]) -> tuple[Tensor, Tensor | None]:
        """Stack the student's and the teacher's logits, of the same classes."""
        logits, teacher = (self.logits_of(samples, of) for of in ("student", "teacher"))
        assert logits is not None
        if teacher is not None and teacher.shape != logits.shape:
            raise ValueError(
                f"{self.name} needs a teacher of the student's classes, got teacher_logits for "
                f"{teacher.shape[1]} and logits for {logits.shape[1]}"
            )
        return logits, teacher

    def labels_of(
        self, samples: Sequence[dict], num_classes: int, field: str = "gt_label"
    ) -> Tensor:
        """Return one label a sample, int64 (N,); a sample without the field has its gt_label."""
        values = [
            sample.get("gt_label") if sample.get(field) is None else sample.get(field)
            for sample in samples
        ]
        if any(value is None for value in values):
            raise ValueError(f"{self.name} needs a gt_label in every sample")
        labels = shared(field, values, lambda: self._join(values))
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"{self.name} needs integer labels from 0 to {num_classes - 1}, as there are "
                f"{num_classes} logits, got {field} from {labels.min()} to {labels.max()}"
            )
        return labels

    def _join(self, values: list) -> Tensor:
        rows = [torch.as_tensor(value).reshape(-1) for value in values]
        sizes = sorted({len(row) for row in rows})
        if sizes != [1]:
            raise ValueError(
                f"{self.name} is for one label a sample, got {', '.join(map(str, sizes))}"
            )
        labels = torch.cat(rows).cpu()
        return labels if labels.is_floating_point() else labels.long()

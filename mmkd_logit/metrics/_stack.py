"""What the metrics take from a batch: stacked, checked, and worked out once for all of them."""

from collections.abc import Callable, Sequence
from operator import is_

import torch
from torch import Tensor

HOOK = "mmkd_logit.LogitOutputsHook"

# Several metrics look at one batch, one after the other; what they share is kept until the next
# batch comes. The tensors that a value was made of are held beside it: an id() could come again.
_kept: dict[str, tuple[list, Tensor]] = {}


def forget() -> None:
    """Let go of the last batch."""
    _kept.clear()


def _once(name: str, inputs: list, make: Callable[[], Tensor]) -> Tensor:
    known, value = _kept.get(name, ([], None))
    if value is not None and len(known) == len(inputs) and all(map(is_, known, inputs)):
        return value
    value = make()
    _kept[name] = inputs, value
    return value


def stacked(samples: Sequence[dict], field: str, metric: str) -> Tensor | None:
    """Stack the vectors that :class:`LogitOutputsHook` leaves in each sample.

    Args:
        samples: N of them.
        field: ``'logits'``, which must be there, or another, which may be missing from all.
        metric: Who asks, for errors.

    Returns:
        (N, size) in float64 on the CPU without a gradient; None where no sample has the field.

    Raises:
        ValueError: If some samples lack the field, if the vectors have several sizes or are none,
            or if a value is not finite.
    """
    values = [sample.get(field) for sample in samples]
    missing = sum(value is None for value in values)
    if missing == len(values) and field != "logits":
        return None
    if missing:
        raise ValueError(
            f"{metric} needs {field} in every sample, {missing} of {len(values)} have none; add "
            f"dict(type='{HOOK}') to custom_hooks, which puts them there"
        )
    return _once(field, values, lambda: _stack(values, samples, field, metric))


def _stack(values: list[Tensor], samples: Sequence[dict], field: str, metric: str) -> Tensor:
    first = values[0]
    if first.ndim != 1 or not len(first) or any(value.shape != first.shape for value in values):
        shapes = sorted({tuple(value.shape) for value in values})
        raise ValueError(
            f"{metric} needs one vector of {field} a sample, all of one length, got shapes "
            f"{', '.join(map(str, shapes))}"
        )
    made = torch.stack(values).detach().cpu().double()
    finite = made.isfinite().all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        name = samples[row].get("sample_idx", f"number {row} of its batch")
        raise ValueError(
            f"{metric}: the {field} of sample {name} are not finite ({int((~finite).sum())} of "
            f"{len(values)} samples of the batch); the network has diverged or its input is broken"
        )
    return made


def pair(samples: Sequence[dict], metric: str) -> tuple[Tensor, Tensor | None]:
    """Stack the student's and the teacher's logits.

    Args:
        samples: N of them.
        metric: Who asks, for errors.

    Returns:
        Twice (N, K); None in the teacher's place where there is none.

    Raises:
        ValueError: As of :func:`stacked`, and if the two have different classes.
    """
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
    """Stack the logits of one of the two.

    Args:
        samples: N of them.
        of: ``'student'`` or ``'teacher'``.
        metric: Who asks, for errors.

    Returns:
        (N, K); None for a teacher that is not there, while the student's logits are.

    Raises:
        ValueError: As of :func:`stacked`.
    """
    student = stacked(samples, "logits", metric)
    return stacked(samples, "teacher_logits", metric) if of == "teacher" else student


def log_softmax(logits: Tensor, of: str) -> Tensor:
    """Return the logarithm of the probabilities.

    Args:
        logits: (N, K), of :func:`stacked`.
        of: ``'student'`` or ``'teacher'``: whose they are.
    """
    return _once(f"log_softmax of {of}", [logits], lambda: logits.log_softmax(1))


def labels_of(samples: Sequence[dict], field: str, num_classes: int, metric: str) -> Tensor:
    """Return one label of each sample.

    Args:
        samples: N of them.
        field: ``'gt_label'``, or ``'clean_label'``, in whose place a sample that has none counts
            with its ``gt_label``.
        num_classes: What labels are below.
        metric: Who asks, for errors.

    Returns:
        (N,), int64, on the CPU.

    Raises:
        ValueError: If a sample has no label, several, or one that is no class.
    """
    values = [sample.get(field, sample.get("gt_label")) for sample in samples]
    if any(value is None for value in values):
        raise ValueError(f"{metric} needs a gt_label in every sample")
    labels = _once(field, values, lambda: _join(values, metric))
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{metric} needs labels from 0 to {num_classes - 1}, as there are {num_classes} "
            f"logits, got {field} from {int(labels.min())} to {int(labels.max())}"
        )
    return labels


def _join(values: list, metric: str) -> Tensor:
    if all(isinstance(value, int) for value in values):
        return torch.tensor(values)
    parts = [torch.as_tensor(value).reshape(-1) for value in values]
    if any(part.numel() != 1 for part in parts):
        sizes = sorted({part.numel() for part in parts})
        raise ValueError(f"{metric} is for one label a sample, got {', '.join(map(str, sizes))}")
    return torch.cat(parts).cpu().long()

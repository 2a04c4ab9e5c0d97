"""What the losses share: building them from configs and checking their inputs."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import did_you_mean, type_name

LOSS = "dict(type='mmkd_logit.LogitMSELoss')"


class LogitLoss(nn.Module):
    """A loss between the student's logits and the teacher's, and what tables and figures say of it.

    Attributes:
        label: Its name in legends; of a loss around another one with ``{loss}`` for that.
        shows_tau: Whether the label is followed by the temperature, as for curves over tau.
        shift_invariant: Whether adding a number to all logits of a sample changes nothing.
        exclusive_classes: Whether it compares softmax probabilities, for one label an image
            (True), sigmoid ones, for several (False), or serves both (None).
        needs_labels: Whether it takes the labels as a third argument.
    """

    label: ClassVar[str]
    shift_invariant: ClassVar[bool]
    shows_tau: ClassVar[bool] = False
    exclusive_classes: ClassVar[bool | None] = None
    needs_labels: bool = False


def describe_loss(spec: Any) -> dict[str, Any]:
    """Return what a loss says of itself: ``label``, ``shows_tau`` and ``shift_invariant``.

    Args:
        spec: Its config, or the loss. One that says nothing is called by its class.
    """
    kind = spec.get("type") if isinstance(spec, Mapping) else type(spec)
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    label = getattr(cls, "label", None) or type_name(kind) or "a loss"
    if "{loss}" in label:
        inner = spec.get("loss") if isinstance(spec, Mapping) else getattr(spec, "loss", None)
        label = label.format(loss=describe_loss(inner)["label"])
    return dict(
        label=label,
        shows_tau=getattr(cls, "shows_tau", False),
        shift_invariant=getattr(cls, "shift_invariant", None),
    )


def build_module(what: str, spec: Any, example: str = LOSS) -> nn.Module:
    """Build a module from its config."""
    if isinstance(spec, nn.Module):
        return spec
    if not isinstance(spec, Mapping) or not spec.get("type"):
        raise ValueError(f"{what} must be a config such as {example}, or a module, got {spec!r}")
    check_registered(what, spec["type"])
    return MODELS.build(spec)


def check_registered(what: str, kind: Any, registry: Any = MODELS) -> None:
    """Make sure that there is a model component of a name."""
    if not isinstance(kind, str):
        return
    with registry.switch_scope_and_registry(None) as place:
        try:
            found = place.get(kind)
        except Exception:  # MMEngine raises what it likes where a module cannot be imported
            found = None
        known = [f"mmkd_logit.{name}" for name in MODELS.module_dict]
        known += list(place.module_dict)
    if found is None:
        hint = did_you_mean(kind, known) or "; check its spelling and scope"
        raise ValueError(f"{what}: no component {kind!r} is registered{hint}")


# Checks shared by the losses. They read metadata only, so they never wait for a device.


REDUCTIONS = ("mean", "batchmean", "sum", "none")

RECIPE = (
    "model = dict(_delete_=True, type='mmkd_logit.LogitDistiller', student={{_base_.model}}, "
    "teacher=dict(config=..., checkpoint=...), "
    "loss_kd=dict(type='mmkd_logit.LogitMSELoss'))"
)


def check_reduction(reduction: object) -> str:
    """Return ``reduction``, or raise ValueError naming the allowed ones."""
    if isinstance(reduction, str) and reduction in REDUCTIONS:
        return reduction
    raise ValueError(f"reduction={reduction!r} is not one of {', '.join(map(repr, REDUCTIONS))}")


def check_class_dim(class_dim: object) -> int:
    """Return ``class_dim``, or raise ValueError where no batch of logits has it for classes."""
    if isinstance(class_dim, int) and not isinstance(class_dim, bool) and class_dim != 0:
        return class_dim
    raise ValueError(
        f"class_dim={class_dim!r} must be an integer other than 0, which is the batch dimension: "
        "-1 for (N, K) or (N, ..., K), 1 for (N, K, ...)"
    )


def check_matrix(loss: str, student: Tensor) -> None:
    """Raise ValueError unless the logits, checked before, are (N, K)."""
    if student.ndim != 2:
        raise ValueError(
            f"{loss} takes logits of shape (N, K), got student_logits {_describe(student)}"
        )


def check_labels(loss: str, labels: Any, logits: Tensor) -> Tensor:
    """Return the classes as (N,) integers on the logits' device."""
    whole = isinstance(labels, Tensor) and labels.dtype in (torch.int64, torch.int32)
    if not whole or labels.shape != logits.shape[:1]:
        got = _describe(labels) if isinstance(labels, Tensor) else repr(labels)
        raise ValueError(
            f"{loss} needs the class of each sample as labels: integers of shape "
            f"({len(logits)},), got {got}"
        )
    return labels.to(device=logits.device, dtype=torch.int64)


def check_logits(
    loss: str,
    student: Tensor,
    teacher: Tensor,
    class_dim: int,
    extra: Mapping[str, Any],
    classes: int = 2,
) -> int:
    """Return the class dimension counted from the front, or raise ValueError."""
    if not (isinstance(student, Tensor) and isinstance(teacher, Tensor)):
        raise ValueError(
            f"{loss} takes two tensors, got {type(student).__name__} as student_logits and "
            f"{type(teacher).__name__} as teacher_logits"
        )
    if extra or not (teacher.is_floating_point() or teacher.is_complex()):
        _raise_called_with_labels(loss, student, teacher, extra)
    problem = _problem(student, teacher, class_dim, classes)
    if problem:
        raise ValueError(
            f"{loss}: {problem}. Given: student_logits {_describe(student)}, "
            f"teacher_logits {_describe(teacher)}, class_dim={class_dim}. Allowed: the same "
            f"floating-point dtype and shape, (N, K) or (N, ..., K), N > 0 and K >= {classes}"
        )
    return class_dim % student.ndim


def promoted_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype a loss of ``logits`` is given in: float64 for float64, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _problem(student: Tensor, teacher: Tensor, class_dim: int, classes: int) -> str:
    """Say what is wrong with the two sets of logits; empty when nothing is."""
    if student.shape != teacher.shape:
        return "the two sets of logits differ in shape"
    if student.dtype != teacher.dtype:
        return "the two sets of logits differ in dtype"
    if not student.is_floating_point():
        return "logits must be floating-point numbers"
    if student.ndim < 2:
        return "logits need a batch and a class dimension"
    if not -student.ndim < class_dim < student.ndim:
        return "class_dim is out of range or meets the batch dimension"
    if student.shape[class_dim] < classes:
        return f"there must be at least {classes} classes"
    if student.numel() == 0:
        return "the batch is empty"
    return ""


def _raise_called_with_labels(
    loss: str, student: Tensor, teacher: Tensor, extra: Mapping[str, Any]
) -> None:
    """Explain that the loss stands where a loss of logits and labels is called."""
    got = f"teacher_logits {_describe(teacher)}"
    if extra:
        got += f" and the keyword arguments {', '.join(map(repr, extra))}"
    raise ValueError(
        f"{loss} compares two sets of logits, not logits with labels. Given: student_logits "
        f"{_describe(student)}, {got}. It cannot be the `loss` of a mmpretrain head, which calls "
        f"its loss with labels and avg_factor; distil like this instead:\n    {RECIPE}"
    )


def _describe(logits: Tensor) -> str:
    return f"{tuple(logits.shape)} {logits.dtype}"

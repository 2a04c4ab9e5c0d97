"""What the losses share: building them from configs and checking their inputs."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmkd_logit.registry import MODELS, find_class
from mmkd_logit.utils.arguments import type_name

LOSS = "dict(type='mmkd_logit.LogitMSELoss')"


class LogitLoss(nn.Module):
    """A loss between the student's logits and the teacher's, described for tables and figures.

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
    exclusive_classes: bool | None = None
    needs_labels: bool = False

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, *labels: Tensor, **kwargs: Any
    ) -> Tensor:
        """Compare the logits; only the student receives gradient, in its own dtype.

        Half precision is raised first, and two floating-point types become the wider one.

        Args:
            student_logits: ``(N, K)``, or dense where the class says so; finite numbers.
            teacher_logits: The same shape.
            *labels: The class of each sample, ``(N,)``, of a loss that needs it.
            **kwargs: Must be empty; taken to explain a call by a head.

        Returns:
            A scalar, or for ``reduction='none'`` what the class says; float64 where logits are,
            else float32.

        Raises:
            ValueError: If shapes differ, the logits are no batch of at least one sample and two
                classes, or labels or further arguments are given.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Show the settings in ``repr``."""
        names = inspect.signature(type(self).__init__).parameters
        own = [name for name in names if hasattr(self, name) and name not in self._modules]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in own)


def describe_loss(spec: Any) -> dict[str, Any]:
    """Return the description of a loss: ``label``, ``shows_tau`` and ``shift_invariant``.

    Args:
        spec: Its config, or the loss. Without a ``label`` it is called by its class.
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
    find_class(what, MODELS, spec["type"])
    return MODELS.build(spec)


# Checks of inputs. They read metadata only, so they never wait for a device.

REDUCTIONS = ("mean", "batchmean", "sum", "none")
RECIPE = (
    "model = dict(_delete_=True, type='mmkd_logit.LogitDistiller', student={{_base_.model}}, "
    "teacher=dict(config=..., checkpoint=...), "
    "loss_kd=dict(type='mmkd_logit.LogitMSELoss'))"
)


def check_class_dim(class_dim: object) -> int:
    """Return ``class_dim`` if a batch of logits can have its classes there."""
    if isinstance(class_dim, int) and not isinstance(class_dim, bool) and class_dim != 0:
        return class_dim
    raise ValueError(
        f"class_dim={class_dim!r} must be an integer other than 0, which is the batch dimension: "
        "-1 for (N, K) or (N, ..., K), 1 for (N, K, ...)"
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
    dense: bool = True,
) -> tuple[Tensor, Tensor, int]:
    """Return two sets of logits as one dtype, and the class dimension counted from the front.

    The teacher's have no gradient. The wider dtype is taken, as teachers' logits that were stored
    in float32 meet a student's under autocast. ``classes`` are the fewest allowed; ``dense``
    allows dimensions beside batch and class.
    """
    if not (isinstance(student, Tensor) and isinstance(teacher, Tensor)):
        raise ValueError(
            f"{loss} takes two tensors, got {type(student).__name__} as student_logits and "
            f"{type(teacher).__name__} as teacher_logits"
        )
    if extra or not (teacher.is_floating_point() or teacher.is_complex()):
        got = f"teacher_logits {_describe(teacher)}"
        if extra:
            got += f" and the keyword arguments {', '.join(map(repr, extra))}"
        raise ValueError(
            f"{loss} compares two sets of logits, not logits with labels. Given: student_logits "
            f"{_describe(student)}, {got}. It cannot be the `loss` of a mmpretrain head, which "
            f"calls its loss with labels and avg_factor; distil like this instead:\n    {RECIPE}"
        )
    problem = _problem(student, teacher, class_dim, classes, dense)
    if problem:
        raise ValueError(
            f"{loss}: {problem}. Given: student_logits {_describe(student)}, "
            f"teacher_logits {_describe(teacher)}, class_dim={class_dim}. Allowed: floating-point "
            f"numbers of one shape, (N, K){' or (N, ..., K)' * dense}, N > 0 and K >= {classes}"
        )
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    return student.to(dtype), teacher.detach().to(dtype), class_dim % student.ndim


def promoted_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype a loss of ``logits`` is given in: float64 for float64, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _problem(student: Tensor, teacher: Tensor, class_dim: int, classes: int, dense: bool) -> str:
    """Say what is wrong with the two sets of logits; empty when nothing is."""
    if student.shape != teacher.shape:
        return "the two sets of logits differ in shape"
    if not student.is_floating_point() or not teacher.is_floating_point():
        return "logits must be floating-point numbers"
    if student.ndim < 2:
        return "logits need a batch and a class dimension"
    if student.ndim > 2 and not dense:
        return "there are more dimensions than batch and class"
    if not -student.ndim < class_dim < student.ndim:
        return "class_dim is out of range or meets the batch dimension"
    if student.shape[class_dim] < classes:
        return f"there must be at least {classes} classes"
    if student.numel() == 0:
        return "the batch is empty"
    return ""


def _describe(logits: Tensor) -> str:
    return f"{tuple(logits.shape)} {logits.dtype}"

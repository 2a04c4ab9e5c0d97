"""What the distiller is put together from, checked."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmkd_logit.registry import MODELS

from .frozen_teacher import FrozenTeacher

# What makes a module the module it is. The distiller shares these with its student, so that
# names of parameters, checkpoints and hooks are those of the plain student.
SHARED = (
    "_parameters",
    "_buffers",
    "_non_persistent_buffers_set",
    "_modules",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def build_student(
    student: dict | nn.Module, data_preprocessor: dict | nn.Module | None
) -> nn.Module:
    """Build the student, giving it the data preprocessor if its config has none."""
    if isinstance(student, nn.Module):
        return student
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    student = copy.deepcopy(student)  # mmpretrain writes into the config it builds from
    if data_preprocessor is not None and student.get("data_preprocessor") is None:
        student["data_preprocessor"] = copy.deepcopy(data_preprocessor)
    return MMPRETRAIN_MODELS.build(student)


def build_loss(loss_kd: dict | nn.Module) -> nn.Module:
    """Build the loss, or raise ValueError if it has state."""
    module = loss_kd if isinstance(loss_kd, nn.Module) else MODELS.build(loss_kd)
    if module.state_dict() or list(module.parameters()):
        raise ValueError(
            f"loss_kd {type(module).__name__} has parameters or buffers; they would be neither "
            "trained nor saved"
        )
    return module


def check_alpha(alpha: float) -> float:
    """Return alpha as a float in [0, 1], or raise ValueError."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be a number in [0, 1], got {alpha!r}")
    return float(alpha)


def check_ensemble(ensemble: str) -> str:
    """Return the way several teachers become one, or raise ValueError."""
    if ensemble not in ("logits", "probs"):
        raise ValueError(f"ensemble must be 'logits' or 'probs', got {ensemble!r}")
    return ensemble


def build_teachers(teacher: Any) -> list[FrozenTeacher]:
    """Read one teacher or several; their networks are built later."""
    teachers = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    if not teachers:
        raise ValueError("teacher is an empty list; name at least one")
    return [each if isinstance(each, FrozenTeacher) else FrozenTeacher(each) for each in teachers]


def check_classes(teachers: Sequence[FrozenTeacher], student: nn.Module) -> None:
    """Build the teachers, or raise ValueError if one has other classes than the student."""
    ours = getattr(getattr(student, "head", None), "num_classes", None)
    for teacher in teachers:
        theirs = teacher.num_classes
        if theirs is not None and ours is not None and theirs != ours:
            raise ValueError(
                f"teacher {teacher.name} has {theirs} classes and the student {ours}; "
                "distilling logits needs the same classes: set head.num_classes"
            )


def logit_module(student: nn.Module) -> nn.Module:
    """Find the child whose output is the logits: an mmpretrain head, or a wrapped network."""
    for name in ("head", "model"):
        module = getattr(student, name, None)
        if isinstance(module, nn.Module):
            return module
    raise ValueError(
        f"the student {type(student).__name__} has neither a head nor a wrapped model; it must "
        "be a classifier that gives logits"
    )


def as_logits(output: Any, whose: str) -> Tensor:
    """Return the logits in a network's output, or raise ValueError."""
    logits = getattr(output, "logits", output)  # Hugging Face wraps them
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"{whose} gives a {type(output).__name__}, not one (N, K) tensor of logits; "
            "only classifiers with one linear output can be distilled"
        )
    return logits

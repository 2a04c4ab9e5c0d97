"""Building a distiller's student, teachers and losses, and comparing their logits."""

import copy
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.losses.base import LOSS, build_module, check_registered

from .teacher import FrozenTeacher

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

    if not isinstance(student, dict) or not student.get("type"):
        raise ValueError(
            "student must be the config of a classifier, such as "
            f"dict(type='ImageClassifier', backbone=...), or a module, got {student!r}"
        )
    check_registered("student.type", student["type"], MMPRETRAIN_MODELS)
    if not isinstance(data_preprocessor, (Mapping, nn.Module, type(None))):
        raise ValueError(
            "data_preprocessor must be a dict such as dict(mean=[...], std=[...]), a module or "
            f"None, got {data_preprocessor!r}"
        )
    student = copy.deepcopy(student)  # mmpretrain writes into the config it builds from
    if data_preprocessor is not None and student.get("data_preprocessor") is None:
        student["data_preprocessor"] = copy.deepcopy(data_preprocessor)
    return MMPRETRAIN_MODELS.build(student)


def build_loss_kd(
    loss_kd: dict | nn.Module | None, alpha: float, feature_kd: Any
) -> nn.Module | None:
    """Build the loss, or raise ValueError if it is missing."""
    if loss_kd is not None:
        return build_loss(loss_kd)
    if alpha > 0 or not feature_kd:
        raise ValueError(
            f"loss_kd is None with alpha={alpha}; set loss_kd=dict(type=...), or alpha=0 with "
            "feature_kd to distil features alone"
        )
    return None


def build_loss(loss: dict | nn.Module, what: str = "loss_kd") -> nn.Module:
    """Build a loss, or raise ValueError if it has state or compares logits with labels."""
    module = build_module(what, loss)
    forward = list(inspect.signature(module.forward).parameters)
    if len(forward) > 1 and forward[1] in ("label", "labels", "gt_label"):
        raise ValueError(
            f"{what} must compare two sets of logits, and {type(module).__name__} compares logits "
            f"with labels; take a loss such as {LOSS}"
        )
    if module.state_dict() or list(module.parameters()):
        raise ValueError(
            f"the loss {type(module).__name__} has parameters or buffers; they would be neither "
            "trained nor saved"
        )
    return module


def check_alpha(alpha: float) -> float:
    """Return alpha as a float in [0, 1], or raise ValueError."""
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real) or not 0 <= alpha <= 1:
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


def hard_labels(data_samples: Any, logits: Tensor) -> Tensor:
    """Return the classes (N,) of the batch, or raise ValueError if they are missing or mixed."""
    whole = data_samples.labels if isinstance(data_samples, SampleBatch) else None
    if whole is not None:
        return whole.to(logits.device)
    wanted = "the distillation loss needs the class of each sample"
    labels, scores = [], []
    for sample in data_samples if data_samples is not None else ():
        label = sample.get("gt_label")
        if label is None or label.numel() != 1:
            raise ValueError(f"{wanted}, got gt_label {label}; single-label samples have one")
        labels.append(label)
        if sample.get("gt_score") is not None:
            scores.append(sample.gt_score)
    if not labels:
        raise ValueError(f"{wanted}, got no data_samples")
    # A one-hot score is the label again. Looking waits for the device, so only where there are
    # scores at all.
    if scores and bool((torch.stack(scores).amax(-1) < 1).any()):
        raise ValueError(
            f"{wanted}, got mixed ones after MixUp or CutMix; take them out of the student's "
            "train_cfg.augments, or take a loss_kd without labels"
        )
    return torch.cat(labels).to(logits.device)


def compare_logits(
    loss_kd: Callable[..., Tensor],
    student_logits: Tensor,
    teacher_logits: Tensor,
    data_samples: Any,
) -> Tensor:
    """Return the loss in the wider of the two types, giving it the labels if it needs them."""
    if student_logits.dtype != teacher_logits.dtype:  # one of the two in half precision
        dtype = torch.promote_types(student_logits.dtype, teacher_logits.dtype)
        student_logits, teacher_logits = student_logits.to(dtype), teacher_logits.to(dtype)
    if getattr(loss_kd, "needs_labels", False):
        return loss_kd(student_logits, teacher_logits, hard_labels(data_samples, student_logits))
    return loss_kd(student_logits, teacher_logits)


def join_logits(logits: list[Tensor], ensemble: str) -> Tensor:
    """Make one (N, K) tensor of the teachers', by the mean of logits or of probabilities."""
    if len(logits) == 1:
        return logits[0]
    stacked = torch.stack(logits)
    if ensemble == "logits":
        return stacked.mean(0)
    log_probs = stacked.float().log_softmax(-1)
    return log_probs.logsumexp(0) - math.log(len(logits))


def weigh_student_losses(student_losses: dict[str, Any], alpha: float) -> dict[str, Any]:
    """Weigh the student's own losses by 1 - alpha, and add their unweighted sum as ``ce``."""
    weighted: dict[str, Any] = {}
    terms: list[Tensor] = []
    for key, value in student_losses.items():
        if "loss" not in key:
            weighted[key] = value
            continue
        value = torch.stack(list(value)).sum() if isinstance(value, (list, tuple)) else value
        weighted["loss_ce" if key == "loss" else key] = (1 - alpha) * value
        terms.append(value.detach())
    weighted["ce"] = torch.stack(terms).sum()
    return weighted

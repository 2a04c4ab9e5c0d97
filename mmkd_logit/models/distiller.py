"""A student that learns from the logits of one or several frozen teachers."""

import math
import numbers
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from mmpretrain.models import ClsHead, ImageClassifier, MultiLabelClsHead
from torch import Tensor, nn

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_choice, check_number

from .build import as_logits, build_loss, build_student, find_logits, known_logits
from .feature_kd import ADAPTERS, FeatureDistilling, find_module
from .teacher import FrozenTeacher

# What makes a module the module it is. The distiller shares these with its student, so that
# names of parameters, checkpoints and hooks are those of the plain student.
_SHARED = (
    "_parameters",
    "_buffers",
    "_non_persistent_buffers_set",
    "_modules",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class TrainingRecord(NamedTuple):
    """What the last training step computed, for hooks to look at."""

    student_logits: Tensor  # (N, K), without gradient
    teacher_logits: Tensor  # (N, K)


def check_alpha(alpha: float) -> float:
    """Return alpha as a float in [0, 1], or raise ValueError."""
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real) or not 0 <= alpha <= 1:
        raise ValueError(
            f"alpha must be a number in [0, 1], got {alpha!r}; other weights are "
            "weights=dict(ce=0.1, kd=9), without alpha"
        )
    return float(alpha)


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights of cross-entropy and distillation loss, or raise ValueError."""
    if not isinstance(weights, Mapping) or set(weights) != {"ce", "kd"}:
        raise ValueError(f"weights must be a dict such as dict(ce=0.1, kd=9), got {weights!r}")
    return {name: check_number(f"weights.{name}", weights[name]) for name in ("ce", "kd")}


def check_ensemble(ensemble: str) -> str:
    """Return the way several teachers become one, or raise ValueError."""
    return check_choice("ensemble", ensemble, ("logits", "probs"))


def read_teachers(teacher: Any) -> list[FrozenTeacher]:
    """Read one teacher or several; their networks are built later."""
    given = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    if not given:
        raise ValueError("teacher is an empty list; name at least one")
    return [each if isinstance(each, FrozenTeacher) else FrozenTeacher(each) for each in given]


@MODELS.register_module()
class LogitDistiller(BaseModel):
    r"""Train a student on :math:`(1 - \alpha)\,L_{CE} + \alpha\,L_{KD}` (Kim et al., IJCAI 2021).

    ``weights`` give the two terms any weights, as most other methods do: logit standardisation
    takes ``dict(ce=0.1, kd=9)``, and CRD's :math:`\gamma, \alpha, \beta` are ``ce``, ``kd`` and the
    ``weight`` of a term of ``feature_kd``.

    Everywhere but in its loss it is its student: parameter names (so ``paramwise_cfg`` and
    layer-wise decay work), checkpoints (plain mmpretrain ones), prediction, ``data_preprocessor``
    with its batch augmentation, attributes. Teachers see the very images that the student sees,
    after MixUp and CutMix too, and are frozen (:class:`FrozenTeacher`).

    With ``alpha=1`` no cross-entropy is computed, with ``alpha=0`` no teacher runs and training
    equals the plain student's bit for bit. The gradient reaches the student only. With
    ``feature_kd`` the teacher always runs, and trained adapters may join the student
    (:class:`FeatureDistilling`).

    The loss dict holds the terms as weighted in the sum (``loss_ce``, ``loss_kd``; those that
    are computed) and, only to look at, the unweighted ones (``ce``, ``kd``) and
    ``teacher_agreement``, the share of the batch where student and teacher(s) name the same
    class.

    Args:
        student: Config of an mmpretrain classifier, or of any ``BaseModel`` of MMEngine that gives
            logits (N, K) for ``mode='tensor'`` and losses for ``mode='loss'``.
        teacher: One teacher, in any form of :class:`FrozenTeacher`, or a list of them.
        loss_kd: Config of the loss between two (N, K) tensors of logits, or the module; None
            with ``alpha=0`` where only features are distilled.
        alpha: Weight of the distillation loss, in ``[0, 1]``.
        ensemble: How several teachers become one: ``'logits'``, the mean of their logits, or
            ``'probs'``, the logarithm of the mean of their probabilities.
        feature_kd: Terms between features, as of :class:`FeatureDistilling`; one teacher only.
        data_preprocessor: For the student if its config has none; the Runner passes the one at
            the top of a config here.
        weights: ``dict(ce=..., kd=...)``, of at least 0, in the place of ``alpha``.
        logits: Name of the student's module whose output is the logits; needed only where
            ``mode='tensor'`` returns something else than the output of one of its modules.

    Attributes:
        record: The :class:`TrainingRecord` of the last loss; None where no teacher ran.

    Raises:
        ValueError: If an argument, the classes of teacher and student or ``loss_kd`` (with
            parameters or buffers) do not fit.

    Example:
        >>> from mmengine.registry import MODELS
        >>> net = dict(type='mmpretrain.ImageClassifier',
        ...            backbone=dict(type='mmkd_logit.WideResNetCIFAR', depth=10, widen_factor=1),
        ...            neck=dict(type='mmpretrain.GlobalAveragePooling'),
        ...            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64))
        >>> distiller = MODELS.build(dict(
        ...     type='mmkd_logit.LogitDistiller', student=net,
        ...     teacher=dict(config=net, checkpoint=None),
        ...     loss_kd=dict(type='mmkd_logit.LogitMSELoss')))
        >>> sorted({name.split('.')[0] for name in distiller.state_dict()})
        ['backbone', 'head']
    """

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: str | dict | Sequence[str | dict | nn.Module] | nn.Module,
        loss_kd: dict | nn.Module | None = None,
        alpha: float = 1.0,
        ensemble: str = "logits",
        data_preprocessor: dict | nn.Module | None = None,
        feature_kd: Sequence[dict] | None = None,
        weights: Mapping[str, float] | None = None,
        logits: str | None = None,
    ) -> None:
        super().__init__()
        student = build_student(student, data_preprocessor)
        self.logits = logits
        if logits is not None:
            find_module(student, logits, "the student")
        # Of modules, outermost first; of a network that is not known found with its first images.
        self.logit_names = known_logits(student) if logits is None else [logits]
        if weights is not None and alpha != 1.0:
            raise ValueError(f"set alpha or weights, got alpha={alpha!r} and weights={weights!r}")
        for name in _SHARED:
            self.__dict__[name] = student.__dict__[name]
        # Plain attributes, not submodules: see FrozenTeacher, and a loss has no state.
        self.__dict__["student"] = student
        self.__dict__["loss_kd"] = None
        self.features = FeatureDistilling(feature_kd or (), student)
        self._set(loss_kd, alpha, weights, ensemble, self._take(teacher))
        self.record: TrainingRecord | None = None
        if len(self.features.adapters):
            self.add_module(ADAPTERS, self.features.adapters)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "student" not in self.__dict__:
                raise
            return getattr(self.__dict__["student"], name)

    def train(self, mode: bool = True) -> "LogitDistiller":
        """Set the student's mode; teachers stay in evaluation."""
        super().train(mode)
        self.student.train(mode)
        return self

    def init_weights(self) -> None:
        """Initialise the student as its config says, then build the teachers."""
        adapters = self._modules.pop(ADAPTERS, None)  # they are not the student's to initialise
        self.student.init_weights()
        if adapters is not None:
            self.add_module(ADAPTERS, adapters)
        self.prepare(self.teachers)

    def prepare(self, teacher: Any) -> list[FrozenTeacher]:
        """Build teachers for this student, without using them yet.

        Args:
            teacher: As in the class; also :class:`FrozenTeacher`, or a list of them.

        Raises:
            FileNotFoundError: If a teacher's checkpoint does not exist.
            ValueError: If it does not fit its network or ``feature_kd``, or teacher and student
                differ in classes.
        """
        teachers = self._take(teacher)
        ours = getattr(getattr(self.student, "head", None), "num_classes", None)
        for each in teachers:
            if has_several_labels(each.model) != has_several_labels(self.student):
                raise ValueError(
                    f"only one of teacher {each.name} and the student has a head of several labels "
                    "an image (MultiLabelClsHead); give both such a head or neither"
                )
            if None not in (each.num_classes, ours) and each.num_classes != ours:
                raise ValueError(
                    f"teacher {each.name} has {each.num_classes} classes and the student {ours}; "
                    "distilling logits needs the same classes: set head.num_classes"
                )
        for term in self.features.terms:
            find_module(teachers[0].model, term.teacher, "the teacher")
        return teachers

    def _take(self, teacher: Any) -> list[FrozenTeacher]:
        teachers = read_teachers(teacher)
        for each in teachers:
            each.set_input_normalization(self.student.data_preprocessor)
        if self.features.terms and len(teachers) > 1:
            raise ValueError(f"feature_kd takes one teacher, got {len(teachers)}")
        if self.features.terms and not teachers[0].settings.whole_forward:
            raise ValueError(
                f"feature_kd looks into the forward of teacher {teachers[0].name}, which cache, "
                "compile and micro_batch leave out, hide or take apart; leave these out"
            )
        return teachers

    def switch(
        self,
        teacher: Any = None,
        loss_kd: dict | nn.Module | None = None,
        alpha: float | None = None,
        ensemble: str | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Train from now on towards another teacher, by another loss or with another weight.

        What is None stays, and if anything does not fit, all stays. Parameters, and with them
        the optimizer and checkpoints, are untouched; the teachers so far are let go. The
        arguments are those of the class; ``teacher`` also as in :meth:`prepare`.

        Raises:
            FileNotFoundError: If a teacher's checkpoint does not exist.
            ValueError: If something does not fit.
        """
        self._set(
            self.loss_kd if loss_kd is None else loss_kd,
            self.alpha if alpha is None else alpha,
            self.weights if alpha is None and weights is None else weights,
            self.ensemble if ensemble is None else ensemble,
            self.teachers if teacher is None else self.prepare(teacher),
        )

    def _set(
        self, loss_kd: Any, alpha: Any, weights: Any, ensemble: Any, teachers: list[FrozenTeacher]
    ) -> None:
        if weights is None:
            weights = dict(ce=1 - check_alpha(alpha), kd=check_alpha(alpha))
        weights, ensemble = check_weights(weights), check_ensemble(ensemble)
        if not any(weights.values()) and not self.features.terms:
            raise ValueError("weights are 0, so that nothing would be trained")
        if loss_kd is None and (weights["kd"] > 0 or not self.features.terms):
            raise ValueError(
                f"loss_kd is None with the weight {weights['kd']}; set loss_kd=dict(type=...), or "
                "alpha=0 with feature_kd to distil features alone"
            )
        loss_kd = None if loss_kd is None else build_loss(loss_kd)
        _check_labels(loss_kd, self.student)
        if ensemble == "probs" and len(teachers) > 1 and has_several_labels(self.student):
            raise ValueError(
                "ensemble='probs' is the mean of softmax probabilities, and the student's "
                f"{type(self.student.head).__name__} has others; take ensemble='logits'"
            )
        self.__dict__.update(loss_kd=loss_kd, weights=weights, ensemble=ensemble, teachers=teachers)

    @property
    def alpha(self) -> float:
        """The weight of the distillation loss."""
        return self.weights["kd"]

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher has a part in the loss."""
        return self.weights["kd"] > 0 or bool(self.features.terms)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"
    ) -> Any:
        """Do what the student does, but for ``mode='loss'``."""
        if mode == "loss":
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode)

    def loss(
        self, inputs: Tensor, data_samples: Any, teacher_logits: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss terms that the class describes.

        Args:
            inputs: Images, (N, C, H, W).
            data_samples: Their N annotations, a list or a ``SampleBatch``, of which a head of
                logits and labels gets the label tensor and no object for each sample; with
                ``alpha=1`` looked at only for a ``loss_kd`` that declares ``needs_labels``, which
                gets the labels as its third argument.
            teacher_logits: (N, K), where they are known already.
        """
        self.record = None
        if not self.needs_teacher:
            samples = samples_for_loss(self.student, data_samples)
            return _weigh(self.student(inputs, samples, mode="loss"), self.weights["ce"])
        if self.weights["ce"] and not self.logit_names:  # before features are watched
            self.logit_names = find_logits(self.student, inputs)
        with self.features.watch(self.student, self.teachers[0].model) as seen:
            # The teacher first: what its pass frees serves the student's.
            if teacher_logits is None:
                teacher_logits = self.teacher_logits(inputs, data_samples)
            losses, student_logits = self._run_student(inputs, data_samples)
        self.record = TrainingRecord(student_logits.detach(), teacher_logits)
        if self.weights["kd"] > 0:
            kd = _compare(self.loss_kd, student_logits, teacher_logits, data_samples)
            losses["loss_kd"] = self.weights["kd"] * kd
            losses["kd"] = kd.detach()
        agreement = student_logits.detach().argmax(-1) == teacher_logits.argmax(-1)
        losses["teacher_agreement"] = agreement.float().mean()
        losses.update(self.features.losses(seen))
        return losses

    def _run_student(self, inputs: Tensor, data_samples: Any) -> tuple[dict[str, Tensor], Tensor]:
        """Return the weighted terms of the student's own loss, if any, and its logits."""
        student, weight = self.student, self.weights["ce"]
        if weight == 0 and self.logits is None:
            return {}, as_logits(student(inputs, mode="tensor"), "the student")
        samples = samples_for_loss(student, data_samples) if weight else None
        if weight and self.logits is None and _needs_labels_alone(student):
            logits = student.head(student.extract_feat(inputs))
            return _weigh(student.head._get_loss(logits, samples), weight), logits
        outputs: dict[str, Any] = {}

        def observe(name: str, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            # A head that was given labels has put its margin on the logits (ArcFace).
            has_margin = isinstance(module, ClsHead) and (len(args) > 1 or kwargs)
            outputs[name] = module.forward(args[0]) if has_margin else output

        with ExitStack() as stack:
            for name in self.logit_names:
                hook = partial(observe, name)
                module = student.get_submodule(name)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            result = student(inputs, samples, mode="loss" if weight else "tensor")
        found = next((outputs[name] for name in self.logit_names if name in outputs), None)
        if found is None:
            raise ValueError(
                f"the student does not run its {self.logit_names[0]}, whose output are the logits, "
                "for its loss; name a module that it runs, as in logits='fc'"
            )
        return _weigh(result, weight) if weight else {}, as_logits(found, "the student")

    def teacher_logits(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        """Return the logits (N, K) of the teacher, or of the ensemble.

        A teacher with a cache needs the samples of a :class:`SampleBatch`, which number the views.
        """
        views = getattr(data_samples, "views", None)
        return join_logits([teacher(inputs, views) for teacher in self.teachers], self.ensemble)

    def reference_logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, K) of the teacher, or of the ensemble, past every cache."""
        return join_logits([teacher.compute(inputs) for teacher in self.teachers], self.ensemble)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Load the student's state as if there were no adapters, then hand theirs on.

        Students of other libraries rename every key on the way. Where a checkpoint has no
        adapters, they stay as they are and nothing counts as missing.
        """
        begin = f"{prefix}{ADAPTERS}."
        theirs = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(begin)}
        super()._load_from_state_dict(state_dict, prefix, *args)
        own = {begin + key: value for key, value in self.features.adapters.state_dict().items()}
        if own:
            state_dict.update(theirs or own)


def has_several_labels(network: nn.Module) -> bool:
    """Whether a network's head is for several labels an image, with a sigmoid for each class."""
    return isinstance(getattr(network, "head", None), MultiLabelClsHead)


def _check_labels(loss_kd: Any, student: nn.Module) -> None:
    """Raise ValueError where a loss compares probabilities that the student's head has not."""
    exclusive = getattr(loss_kd, "exclusive_classes", None)
    if exclusive is not None and exclusive == has_several_labels(student):
        kind, right = (
            ("softmax", "ScaledBinaryKLDivLoss") if exclusive else ("sigmoid", "ScaledKLDivLoss")
        )
        raise ValueError(
            f"{type(loss_kd).__name__} compares {kind} probabilities, and the student's "
            f"{type(student.head).__name__} has others; take mmkd_logit.{right}, or "
            "mmkd_logit.LogitMSELoss, which serves both"
        )


# The student's own loss, of logits and labels.


class _WholeBatch:
    """Stands where a head looks for samples: one, whose label is those of the batch."""

    def __init__(self, gt_label: Tensor) -> None:
        self.gt_label = gt_label

    def __contains__(self, key: str) -> bool:
        return key == "gt_label"


def samples_for_loss(student: nn.Module, data_samples: Any) -> Any:
    """Return what stands for the samples in the student's own loss."""
    if isinstance(data_samples, SampleBatch) and _needs_labels_alone(student):
        labels = data_samples.labels
        if labels is not None:
            return [_WholeBatch(labels)]
    return data_samples


def _needs_labels_alone(student: nn.Module) -> bool:
    """Whether the loss is the usual classifier's and head's, of logits and labels."""
    head = getattr(student, "head", None)
    return (
        isinstance(student, ImageClassifier)
        and type(student).forward is ImageClassifier.forward
        and type(student).loss is ImageClassifier.loss
        and isinstance(head, ClsHead)
        and type(head).loss is ClsHead.loss
        and type(head)._get_loss is ClsHead._get_loss
    )


def _weigh(student_losses: dict[str, Any], weight: float) -> dict[str, Any]:
    """Weigh the student's own losses, means as MMEngine takes them; ``ce`` is their sum."""
    weighted: dict[str, Any] = {}
    terms: list[Tensor] = []
    for key, value in student_losses.items():
        if "loss" not in key:
            weighted[key] = value
            continue
        if isinstance(value, (list, tuple)):
            value = sum(v.mean() for v in value)
        elif value.ndim:  # a usual loss is a mean already
            value = value.mean()
        weighted["loss_ce" if key == "loss" else key] = weight * value
        terms.append(value.detach())
    weighted["ce"] = torch.stack(terms).sum()
    return weighted


# The distillation loss.


def join_logits(logits: list[Tensor], ensemble: str) -> Tensor:
    """Make one (N, K) tensor of the teachers', by the mean of logits or of probabilities."""
    if len(logits) == 1:
        return logits[0]
    stacked = torch.stack(logits)
    if ensemble == "logits":
        return stacked.mean(0)
    log_probs = stacked.float().log_softmax(-1)
    return log_probs.logsumexp(0) - math.log(len(logits))


def _compare(loss_kd: Any, student: Tensor, teacher: Tensor, data_samples: Any) -> Tensor:
    """Return the loss in the wider of the two types, giving it the labels if it needs them."""
    dtype = torch.promote_types(student.dtype, teacher.dtype)  # one may be in half precision
    student, teacher = student.to(dtype), teacher.to(dtype)
    if getattr(loss_kd, "needs_labels", False):
        return loss_kd(student, teacher, _hard_labels(data_samples).to(student.device))
    return loss_kd(student, teacher)


def _hard_labels(data_samples: Any) -> Tensor:
    """Return the classes (N,) of the batch, or raise ValueError if they are missing or mixed."""
    if isinstance(data_samples, SampleBatch) and data_samples.labels is not None:
        return data_samples.labels
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
    return torch.cat(labels)

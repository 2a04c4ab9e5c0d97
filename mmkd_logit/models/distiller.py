"""A student that learns from the logits of one or several frozen teachers."""

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.model import BaseModel
from mmpretrain.models import ClsHead, ImageClassifier
from torch import Tensor, nn

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import MODELS

from .build import (
    SHARED,
    as_logits,
    build_loss_kd,
    build_student,
    build_teachers,
    check_alpha,
    check_classes,
    check_ensemble,
    compare_logits,
    join_logits,
    logit_module,
    weigh_student_losses,
)
from .feature_kd import FeatureDistilling
from .parts import ADAPTERS, adapters_aside, load_around_adapters
from .teacher import FrozenTeacher


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


def losses_and_output(
    student: nn.Module, head: nn.Module, inputs: Tensor, data_samples: Any
) -> tuple[dict[str, Tensor], Any]:
    """Return the student's own losses, and what its head gave in the same pass."""
    data_samples = samples_for_loss(student, data_samples)
    if _needs_labels_alone(student):
        plain: Any = student
        logits = plain.head(plain.extract_feat(inputs))
        return plain.head._get_loss(logits, data_samples), logits
    outputs: list[Any] = []
    handle = head.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        losses = student.loss(inputs, data_samples)
    finally:
        handle.remove()
    return losses, outputs[-1] if outputs else None


def _needs_labels_alone(student: nn.Module) -> bool:
    """Whether the loss is the usual classifier's and head's, of logits and labels."""
    head = getattr(student, "head", None)
    return (
        isinstance(student, ImageClassifier)
        and type(student).loss is ImageClassifier.loss
        and isinstance(head, ClsHead)
        and type(head).loss is ClsHead.loss
        and type(head)._get_loss is ClsHead._get_loss
    )


# A student network trained towards its teachers' logits.


@MODELS.register_module()
class LogitDistiller(BaseModel):
    r"""Train a student on :math:`(1 - \alpha)\,L_{CE} + \alpha\,L_{KD}` (Kim et al., IJCAI 2021).

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
        student: Config of an mmpretrain classifier.
        teacher: One teacher, in any form of :class:`FrozenTeacher`, or a list of them.
        loss_kd: Config of the loss between two (N, K) tensors of logits, or the module; None
            with ``alpha=0`` where only features are distilled.
        alpha: Weight of the distillation loss, in ``[0, 1]``.
        ensemble: How several teachers become one: ``'logits'``, the mean of their logits, or
            ``'probs'``, the logarithm of the mean of their probabilities.
        feature_kd: Terms between features, as of :class:`FeatureDistilling`; one teacher only.
        data_preprocessor: For the student if its config has none; the Runner passes the one at
            the top of a config here.

    Attributes:
        on_teacher_logits: Called with the teachers' logits (N, K) of each training batch, where
            somebody watches; None.

    Raises:
        ValueError: If ``alpha``, ``ensemble``, ``teacher``, ``feature_kd``, the classes of teacher
            and student or ``loss_kd`` (with parameters or buffers) do not fit.

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
    ) -> None:
        super().__init__()
        student = build_student(student, data_preprocessor)
        logit_module(student)  # for its check
        for name in SHARED:
            self.__dict__[name] = student.__dict__[name]
        # Plain attributes, not submodules: see FrozenTeacher, and a loss has no state.
        self.__dict__["student"] = student
        self.alpha = check_alpha(alpha)
        self.__dict__["loss_kd"] = build_loss_kd(loss_kd, self.alpha, feature_kd)
        self.ensemble = check_ensemble(ensemble)
        self.on_teacher_logits: Callable[[Tensor], None] | None = None
        self.teachers = build_teachers(teacher)
        for each in self.teachers:
            each.expect_inputs_of(student.data_preprocessor)
        self.features = FeatureDistilling(feature_kd or (), student, len(self.teachers))
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
        """Initialise the student as its config says, then build the teachers.

        Raises:
            FileNotFoundError: If a teacher's checkpoint does not exist.
            ValueError: If it does not fit its network, or teacher and student differ in classes.
        """
        with adapters_aside(self):
            self.student.init_weights()
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
        teachers = build_teachers(teacher)
        for each in teachers:
            each.expect_inputs_of(self.student.data_preprocessor)
        check_classes(teachers, self.student)
        if self.features.terms:
            if len(teachers) > 1:
                raise ValueError("feature_kd takes one teacher; an ensemble has no features")
            teachers[0].require_whole_forward("feature_kd")
            self.features.check_teacher(teachers[0].model)
        return teachers

    def switch(
        self,
        teacher: Any = None,
        loss_kd: dict | nn.Module | None = None,
        alpha: float | None = None,
        ensemble: str | None = None,
    ) -> None:
        """Train from now on towards another teacher, by another loss or with another weight.

        What is None stays, and if anything does not fit, all stays. Parameters, and with them
        the optimizer and checkpoints, are untouched; the teachers so far are let go.

        Args:
            teacher: As in :meth:`prepare`.
            loss_kd: As in the class, like the others.
            alpha: From 0, where no teacher runs, to 1.
            ensemble: How the teachers become one.

        Raises:
            FileNotFoundError: As in :meth:`prepare`.
            ValueError: If something does not fit.
        """
        loss_kd = self.loss_kd if loss_kd is None else loss_kd
        alpha = self.alpha if alpha is None else check_alpha(alpha)
        changes = dict(
            loss_kd=build_loss_kd(loss_kd, alpha, self.features.terms),
            alpha=alpha,
            ensemble=self.ensemble if ensemble is None else check_ensemble(ensemble),
            teachers=self.teachers if teacher is None else self.prepare(teacher),
        )
        self.__dict__.update(changes)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher has a part in the loss."""
        return self.alpha > 0 or bool(self.features.terms)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"
    ) -> Any:
        """Do what the student does, but for ``mode='loss'``.

        Args:
            inputs: Images, (N, C, H, W).
            data_samples: Their N annotations.
            mode: ``'tensor'``, ``'predict'`` or ``'loss'``.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode)

    def loss(
        self, inputs: Tensor, data_samples: list | None, teacher_logits: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss terms.

        Args:
            inputs: Images, (N, C, H, W).
            data_samples: Their N annotations, a list or a ``SampleBatch``, of which a head of
                logits and labels gets the label tensor and no object for each sample; with
                ``alpha=1`` looked at only for a ``loss_kd`` that declares ``needs_labels``, which
                gets the labels as its third argument.
            teacher_logits: (N, K), where they are known already.

        Returns:
            The terms described in the class.
        """
        if not self.needs_teacher:
            samples = samples_for_loss(self.student, data_samples)
            return weigh_student_losses(self.student.loss(inputs, samples), self.alpha)
        with self.features.watch(self.student, self.teachers[0].model) as seen:
            losses, student_logits = self._run_student(inputs, data_samples)
            if teacher_logits is None:
                teacher_logits = self.teacher_logits(inputs, data_samples)
        if self.on_teacher_logits is not None:
            self.on_teacher_logits(teacher_logits)
        if self.alpha > 0:
            kd = compare_logits(self.loss_kd, student_logits, teacher_logits, data_samples)
            losses["loss_kd"] = self.alpha * kd
            losses["kd"] = kd.detach()
        agreement = student_logits.detach().argmax(-1) == teacher_logits.argmax(-1)
        losses["teacher_agreement"] = agreement.float().mean()
        losses.update(self.features.losses(seen))
        return losses

    def _run_student(
        self, inputs: Tensor, data_samples: list | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the weighted terms of the student's own loss, if any, and its logits."""
        if self.alpha == 1:
            return {}, as_logits(self.student(inputs, mode="tensor"), "the student")
        student_losses, output = losses_and_output(
            self.student, logit_module(self.student), inputs, data_samples
        )
        logits = as_logits(output, "the student")
        return weigh_student_losses(student_losses, self.alpha), logits

    def teacher_logits(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Logits of the teacher, or of the ensemble.

        Args:
            inputs: Images as the student gets them, (N, C, H, W).
            data_samples: Their annotations; a teacher with a cache needs those of a
                :class:`SampleBatch`, which number the pictures.

        Returns:
            (N, K), without gradient.
        """
        views = getattr(data_samples, "views", None)
        return join_logits([teacher(inputs, views) for teacher in self.teachers], self.ensemble)

    def reference_logits(self, inputs: Tensor) -> Tensor:
        """Logits of the teacher, or of the ensemble, for pictures that no cache knows.

        Args:
            inputs: As of :meth:`teacher_logits`.

        Returns:
            (N, K), without gradient.
        """
        return join_logits([teacher.compute(inputs) for teacher in self.teachers], self.ensemble)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        load_around_adapters(self, super()._load_from_state_dict, state_dict, prefix, *args)

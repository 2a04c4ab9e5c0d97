"""A trained classifier, frozen whole, that only gives logits."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ._feature_adapters import without_adapters
from ._key_names import with_mmpretrain_names
from ._random_state import preserve_random_state
from ._teacher_spec import TeacherSpec, resolve_teacher


class FrozenTeacher:
    r"""A classifier in evaluation mode, without gradient, that maps images to logits.

    It is not an ``nn.Module`` on purpose: kept as a plain attribute of the distiller it is
    outside ``parameters()`` (so outside the optimizer and DDP's buckets), outside
    ``state_dict()`` (so outside checkpoints), and ``model.train()`` cannot switch its dropout
    on. A deep copy, as MMEngine's ``EMAHook`` makes of the model, is the same object.

    The network is built at the first use or by :meth:`build`, with every random generator left
    as it was. When the teacher's config normalises images differently from the student's, its
    input is converted, :math:`x_t = (x_s \sigma_s + \mu_s - \mu_t) / \sigma_t`; both are taken
    to see the channels in the same order.

    Args:
        spec: ``dict(config=..., checkpoint=...)``, where config is a config file (also
            ``mmpretrain::...``), the name of an mmpretrain model, or a model config, and
            checkpoint a path, a URL, ``open-mmlab://NAME`` or ``torchvision://NAME`` (its
            ResNets); an mmpretrain model's own weights when left out, the model's own
            initialisation when None. Also the name alone, a model config with
            ``init_cfg=dict(type='Pretrained', ...)``, or a built module. A config of a distilled
            student means its student.

    Raises:
        ValueError: If ``spec`` cannot be read or names no checkpoint.
        FileNotFoundError: If the config file does not exist.

    Example:
        >>> import torch
        >>> from mmkd_logit.models import FrozenTeacher
        >>> teacher = FrozenTeacher(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)))
        >>> teacher(torch.rand(2, 1, 2, 2)).requires_grad
        False
    """

    def __init__(self, spec: str | dict | nn.Module) -> None:
        self._model: nn.Module | None = None
        self._spec: TeacherSpec | None = None
        if isinstance(spec, nn.Module):
            self.name = type(spec).__name__
            self._model = _freeze(spec)
        else:
            self._spec = resolve_teacher(spec)
            self.name = self._spec.name
        self._device = torch.device("cpu")
        self._student_normalisation: tuple[Tensor, Tensor] | None = None
        self._conversion: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict) -> "FrozenTeacher":
        return self  # nothing in it ever changes, and a second copy would double its memory

    @property
    def model(self) -> nn.Module:
        """The network, built on the first access."""
        self.build()
        assert self._model is not None
        return self._model

    @property
    def num_classes(self) -> int | None:
        """Number of classes as the head states it; None where it does not."""
        return getattr(getattr(self.model, "head", None), "num_classes", None)

    def build(self) -> None:
        """Build the network and load its weights, once.

        Raises:
            FileNotFoundError: If the checkpoint does not exist.
            ValueError: If it lacks weights of the network or has others.
        """
        if self._model is None:
            assert self._spec is not None
            with preserve_random_state():
                self._model = _freeze(_build(self._spec))
            self._match_normalisation()

    def expect_inputs_of(self, student_preprocessor: nn.Module) -> None:
        """Say how the images that will come are normalised.

        Args:
            student_preprocessor: The data preprocessor that makes them.
        """
        theirs = _normalisation(student_preprocessor)
        if _same(theirs, self._student_normalisation):
            return
        self._student_normalisation = theirs
        if self._model is not None:
            self._match_normalisation()

    def _match_normalisation(self) -> None:
        theirs = self._student_normalisation
        mine = _normalisation(getattr(self._model, "data_preprocessor", None))
        self._conversion = None
        if theirs is None or mine is None:
            return
        (mean_s, std_s), (mean_t, std_t) = theirs, mine
        if not _same(theirs, mine):
            scale, shift = std_s / std_t, (mean_s - mean_t) / std_t
            self._conversion = (scale.to(self._device), shift.to(self._device))
            print_log(f"Teacher {self.name} gets the images in its own normalisation.", "current")

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            inputs: Images as the student gets them, (N, C, H, W).

        Returns:
            (N, K) logits without gradient.

        Raises:
            ValueError: If the network's output is not one tensor.
        """
        model = self.model
        if self._device != inputs.device:
            model.to(inputs.device)
            self._device = inputs.device
            if self._conversion is not None:
                scale, shift = self._conversion
                self._conversion = (scale.to(inputs.device), shift.to(inputs.device))
        if self._conversion is not None:
            scale, shift = self._conversion
            inputs = inputs * scale + shift
        logits = model(inputs)
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"teacher {self.name} gives a {type(logits).__name__}, not one tensor of logits; "
                "only classifiers with one linear output can teach"
            )
        return logits


def _freeze(model: nn.Module) -> nn.Module:
    model.eval()
    return model.requires_grad_(False)


def _normalisation(preprocessor: Any) -> tuple[Tensor, Tensor] | None:
    if not getattr(preprocessor, "_enable_normalize", False):
        return None
    return preprocessor.mean.detach().cpu().float(), preprocessor.std.detach().cpu().float()


def _same(first: tuple[Tensor, Tensor] | None, second: tuple[Tensor, Tensor] | None) -> bool:
    if first is None or second is None:
        return first is second
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _build(spec: TeacherSpec) -> nn.Module:
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope(spec.scope):
        model = MODELS.build(spec.model)
    if spec.checkpoint is None:
        if hasattr(model, "init_weights"):
            model.init_weights()
        print_log(f"Teacher {spec.name} keeps its own weights (checkpoint=None).", "current")
        return model
    try:
        checkpoint = CheckpointLoader.load_checkpoint(spec.checkpoint, map_location="cpu")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the checkpoint {spec.checkpoint} of teacher {spec.name} does not exist. Train it "
            "first (tools/train.py with --train-teacher does), or set model.teacher.checkpoint."
        ) from None
    _load_exactly(model, checkpoint, spec)
    print_log(f"Teacher {spec.name} loaded from {spec.checkpoint}.", "current", level=logging.INFO)
    return model


def _load_exactly(model: nn.Module, checkpoint: Any, spec: TeacherSpec) -> None:
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{spec.checkpoint} holds no state_dict for teacher {spec.name}")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = without_adapters(state)  # of the epoch_N.pth of a run that distilled features
    try:
        state = with_mmpretrain_names(state, model.state_dict())
        result = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:  # sizes differ, or names we cannot translate
        raise ValueError(f"{spec.checkpoint} does not fit teacher {spec.name}: {error}") from None
    # BatchNorm's counter is not used in evaluation and missing from old checkpoints.
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"{spec.checkpoint} does not fit teacher {spec.name}: missing keys "
            f"{missing or 'none'}, unexpected keys {list(result.unexpected_keys) or 'none'}. "
            "Check that config and checkpoint are of the same network."
        )

"""A trained classifier, frozen whole, that only gives logits."""

from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_logit._arguments import refuse_unknown
from mmkd_logit.datasets.views import Views

from ._cache_identity import describe_machine, describe_preprocessor, weights_hash
from ._random_state import preserve_random_state
from ._teacher_inference import TeacherInference
from ._teacher_network import build_network, freeze
from ._teacher_spec import TeacherSpec, resolve_teacher
from .teacher_cache import UNKEYED, TeacherCache

_MICRO_BATCH = 32  # of a cache, where nobody says


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
            student means its student. Beside config, ``channels_last``, ``autocast``,
            ``compile`` and ``micro_batch`` say how it computes (:class:`TeacherInference`), and
            ``cache`` holds the arguments of a :class:`TeacherCache`, whose misses are computed
            in micro-batches of 32 if ``micro_batch`` does not say otherwise.

    Raises:
        ValueError: If ``spec`` cannot be read, names no checkpoint or has wrong options.
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
        options: dict[str, Any] = {}
        if isinstance(spec, nn.Module):
            self.name = type(spec).__name__
            self._model = freeze(spec)
        else:
            self._spec = resolve_teacher(spec)
            self.name = self._spec.name
            options = dict(self._spec.options)
        self.cache = _build_cache(options.pop("cache", None))
        if self.cache is not None and options.get("micro_batch") is None:
            options["micro_batch"] = _MICRO_BATCH
        self.inference = TeacherInference(**options)
        self._weights: str | None = None
        self._preprocessor: dict[str, Any] | None = None
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
                self._model = freeze(build_network(self._spec))
            self._match_normalisation()

    def expect_inputs_of(self, student_preprocessor: nn.Module) -> None:
        """Say how the images that will come are normalised.

        Args:
            student_preprocessor: The data preprocessor that makes them.
        """
        if self.cache is not None and getattr(student_preprocessor, "batch_augments", None):
            raise ValueError(UNKEYED)
        described = describe_preprocessor(student_preprocessor)
        if described != self._preprocessor and self.cache is not None:
            self.cache.forget()
        self._preprocessor = described
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

    def require_whole_forward(self, reader: str) -> None:
        """Make sure that every batch passes the network once, as a whole.

        Args:
            reader: What needs that, for the message.

        Raises:
            ValueError: If an option stands against it.
        """
        if self.cache is not None or not self.inference.whole_forward:
            raise ValueError(
                f"{reader} looks into the forward of teacher {self.name}, which cache, compile "
                "and micro_batch leave out, hide or take apart; leave these out"
            )

    @torch.no_grad()
    def __call__(self, inputs: Tensor, views: Views | None = None) -> Tensor:
        """Compute the logits, or look them up.

        Args:
            inputs: Images as the student gets them, (N, C, H, W).
            views: Which pictures these are; needed for a cache alone.

        Returns:
            (N, K) logits without gradient; in float32 where the network computed in half
            precision.

        Raises:
            ValueError: If the network's output is not one tensor, or the cache cannot tell the
                pictures apart.
        """
        if self.cache is None:
            return self.compute(inputs)
        return self.cache(inputs, views, self.compute, lambda views: self._describe(inputs))

    def lacking(self, inputs: Tensor, views: Views) -> np.ndarray:
        """Tell which pictures the cache has not but would keep.

        Args:
            inputs: Any images on the device and of the type of those to come.
            views: Which pictures are asked for.

        Returns:
            Bools (N,); all True without a cache.
        """
        if self.cache is None:
            return np.ones(len(views.index), bool)
        return self.cache.lacking(inputs, views, lambda views: self._describe(inputs))

    @torch.no_grad()
    def compute(self, inputs: Tensor) -> Tensor:
        """Compute the logits, whatever the cache may know.

        Args:
            inputs: As of the call.

        Returns:
            As the call.

        Raises:
            ValueError: If the network's output is not one tensor.
        """
        model = self.model
        return self._as_logits(self.inference(model, self._as_expected(inputs)))

    @torch.no_grad()
    def try_out(self, inputs: Tensor) -> Tensor:
        """Compute a few logits to see whether the images fit, neither compiled nor in pieces.

        Args:
            inputs: As of the call.

        Returns:
            As the call.

        Raises:
            ValueError: If the network's output is not one tensor.
        """
        model = self.model
        return self._as_logits(self.inference.plainly(model, self._as_expected(inputs)))

    def _as_expected(self, inputs: Tensor) -> Tensor:
        """Return the images in the teacher's normalisation, with its network where they are."""
        if self._device != inputs.device:
            self.model.to(inputs.device)
            self._device = inputs.device
            if self._conversion is not None:
                scale, shift = self._conversion
                self._conversion = (scale.to(inputs.device), shift.to(inputs.device))
        if self._conversion is not None:
            scale, shift = self._conversion
            inputs = inputs * scale + shift
        return inputs

    def _as_logits(self, logits: Any) -> Tensor:
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"teacher {self.name} gives a {type(logits).__name__}, not one tensor of logits; "
                "only classifiers with one linear output can teach"
            )
        return logits

    def _describe(self, inputs: Tensor) -> dict[str, Any]:
        """Name all that decides the logits of pictures, for :class:`TeacherCache`."""
        if self._preprocessor is None:
            raise ValueError(
                f"teacher {self.name} has a cache and was not told how images are normalised; "
                "call expect_inputs_of(data_preprocessor) first"
            )
        model = self.model
        if self._weights is None:
            self._weights = weights_hash(model)
        assert self._spec is not None
        return dict(
            teacher=self.name,
            weights=self._weights,
            model=self._spec.model,
            preprocessor=self._preprocessor,
            conversion=[part.flatten().tolist() for part in self._conversion or ()],
            inputs=str(inputs.dtype),
            num_classes=self.num_classes or self.compute(inputs[:1]).shape[-1],
            computed=self.inference.settings(inputs.device),
            machine=describe_machine(inputs.device),
        )


def _build_cache(options: Any) -> TeacherCache | None:
    if options is None or isinstance(options, TeacherCache):
        return options
    known = ("storage", "dtype", "root", "max_gib")
    if not isinstance(options, dict):
        raise ValueError(
            f"a teacher's cache is a dict of {', '.join(known)}, or None, got {options!r}"
        )
    refuse_unknown("a teacher's cache", options, known)
    return TeacherCache(**options)


def _normalisation(preprocessor: Any) -> tuple[Tensor, Tensor] | None:
    if not getattr(preprocessor, "_enable_normalize", False):
        return None
    return preprocessor.mean.detach().cpu().float(), preprocessor.std.detach().cpu().float()


def _same(first: tuple[Tensor, Tensor] | None, second: tuple[Tensor, Tensor] | None) -> bool:
    if first is None or second is None:
        return first is second
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

"""Frozen teachers: the settings of one, its network, its weights and its logits."""

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mmkd_logit.checkpoint import load_exactly, load_from_file
from mmkd_logit.datasets.in_memory import Views
from mmkd_logit.registry import load_config
from mmkd_logit.utils.arguments import (
    arguments_of,
    check_choice,
    check_count,
    check_flag,
    check_text,
    refuse_unknown,
    type_name,
)

from .build import as_logits, preserve_random_state
from .preprocessor import check_settings
from .teacher_cache import (
    UNKEYED,
    TeacherCache,
    describe_machine,
    describe_preprocessor,
    weights_hash,
)

_FORMS = (
    "Write a teacher as dict(config='configs/wrn/wrn28-4.py', checkpoint='PATH or URL'), as "
    "dict(config=dict(type='ImageClassifier', ...), checkpoint=...), as the name of an mmpretrain "
    "model ('resnet50_8xb32_in1k'), or as a list of these for an ensemble."
)
_PRECISIONS = dict(bfloat16=torch.bfloat16, float16=torch.float16, float32=torch.float32)


class TeacherNetwork(NamedTuple):
    """What the settings of a teacher name.

    The model is a config, built in a registry scope, or a module. The checkpoint is None if the
    model initialises itself, the size of its images (height, width) if its config does not say.
    """

    name: str
    model: Any
    checkpoint: str | None
    scope: str = "mmpretrain"
    input_size: tuple[int, int] | None = None


@dataclass
class TeacherSettings:
    """What a config says of a teacher; an option that it leaves out is None.

    Attributes:
        config: Config file, name of an mmpretrain model, config of a model, or a built module.
        checkpoint: Path or URL; None for the weights that the model initialises itself with;
            ``...`` if left out, for published weights or those of ``init_cfg``.
        channels_last: Whether the network computes in ``torch.channels_last``.
        autocast: Precision, whatever that of the student.
        compile: Whether the network is compiled, or arguments of ``torch.compile``.
        micro_batch: Number of images in each forward pass. Left out, the whole batch; with a
            cache 32 on a CPU, and on a GPU the batch filled up to a multiple of 32.
        cache: Arguments of :class:`TeacherCache`.
        input_size: Size of the teacher's images, a number or (height, width), to which those of
            the student are resized, bilinearly and without aliasing.
        mean: Of each channel's pixels (0 to 255), for a network without a ``data_preprocessor`` or
            with another one than it was trained by.
        std: As ``mean``.
    """

    config: Any
    checkpoint: Any = ...
    channels_last: bool | None = None
    autocast: str | None = None
    compile: bool | Mapping[str, Any] | None = None
    micro_batch: int | None = None
    cache: dict[str, Any] | None = None
    input_size: Any = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    @classmethod
    def from_config(cls, spec: Any) -> "TeacherSettings":
        """Read a teacher in any form of :class:`FrozenTeacher`."""
        if isinstance(spec, cls):
            return spec
        if not isinstance(spec, dict) or ("type" in spec and "config" not in spec):
            spec = dict(config=spec)
        if "config" not in spec:
            raise ValueError(f"cannot read a teacher from {spec!r}. {_FORMS}")
        refuse_unknown("a teacher", spec, [field.name for field in fields(cls)])
        return cls(**(spec.to_dict() if isinstance(spec, ConfigDict) else spec))

    def __post_init__(self) -> None:
        if self.checkpoint not in (None, ...):
            what = "a path, a URL, open-mmlab://NAME or None"
            check_text("a teacher's checkpoint", self.checkpoint, what)
        if self.channels_last is not None:
            check_flag("a teacher's channels_last", self.channels_last)
        if self.autocast is not None:
            check_choice("a teacher's autocast", self.autocast, _PRECISIONS)
        if self.micro_batch is not None:
            check_count("a teacher's micro_batch", self.micro_batch)
        check_settings(dict(mean=self.mean, std=self.std))
        if self.input_size is not None:
            size = self.input_size
            size = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
            if len(size) != 2:
                raise ValueError(f"a teacher's input_size is one number or two, got {size}")
            self.input_size = tuple(check_count("a teacher's input_size", each) for each in size)
        if isinstance(self.compile, Mapping):
            known = [name for name in arguments_of(torch.compile)[0] if name != "model"]
            refuse_unknown("a teacher's compile", self.compile, known)
        elif not isinstance(self.compile, (bool, type(None))):
            raise ValueError(
                "a teacher's compile must be True, False or a dict of torch.compile's arguments, "
                f"got {self.compile!r}"
            )
        if self.cache is None:
            return
        known = list(arguments_of(TeacherCache)[0])
        if not isinstance(self.cache, dict):
            raise ValueError(
                f"a teacher's cache is a dict of {', '.join(known)}, or None, got {self.cache!r}"
            )
        refuse_unknown("a teacher's cache", self.cache, known)

    @property
    def options(self) -> dict[str, Any]:
        """How the teacher computes: everything but its network and weights."""
        named = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def arithmetic(self) -> dict[str, Any]:
        """The options that decide the bits of the logits.

        A cache returns what the network computes in these micro-batches, in the type it stores.
        """
        options = self.options
        cache = options.pop("cache", {})
        if cache.get("dtype", "float32") != "float32":
            options["cache"] = dict(dtype=cache["dtype"])
        if self.batch_multiple is not None:
            options["micro_batch"] = self.batch_multiple
        return options

    @property
    def batch_multiple(self) -> int | None:
        """The number of images to a multiple of which batches are filled up, if any."""
        return 32 if self.micro_batch is None and self.cache is not None else self.micro_batch

    def images_a_pass(self, device: torch.device) -> int | None:
        """Return the number of images in each forward pass; None for the batch as it is.

        A GPU takes as long to launch the kernels of 32 images as those of a batch. Compiled, each
        size would be compiled.
        """
        whole = device.type != "cpu" and self.compile in (None, False)
        return self.micro_batch if whole else self.batch_multiple

    @property
    def whole_forward(self) -> bool:
        """Whether hooks on the network's modules see one ordinary forward of the whole batch."""
        return self.batch_multiple is None and self.compile in (None, False)

    @property
    def file(self) -> Path | None:
        """The checkpoint, if it is a path and not a URL."""
        local = isinstance(self.checkpoint, str) and "://" not in self.checkpoint
        return Path(self.checkpoint).expanduser() if local else None

    def as_config(self) -> dict[str, Any]:
        """Return the dict that a config holds."""
        named = {} if self.checkpoint is ... else dict(checkpoint=self.checkpoint)
        return dict(config=self.config, **named, **self.options)

    def resolve(self) -> TeacherNetwork:
        """Read the config that is named, and find the network and its weights in it."""
        if isinstance(self.config, nn.Module):
            checkpoint = None if self.checkpoint is ... else self.checkpoint
            return TeacherNetwork(type(self.config).__name__, self.config, checkpoint)
        name, cfg, published = _read_config(self.config)
        model = cfg.get("model", cfg)
        model = copy.deepcopy(model.to_dict() if isinstance(model, ConfigDict) else dict(model))
        preprocessor = cfg.get("data_preprocessor")
        while type_name(model) == "LogitDistiller":
            preprocessor = model.get("data_preprocessor", preprocessor)
            model = model["student"]  # a distilled student teaches as the plain network it is
        if preprocessor is not None:
            model.setdefault("data_preprocessor", copy.deepcopy(dict(preprocessor)))
        # Batch augmentation is the student's; both see the same images.
        if model.get("data_preprocessor"):
            model["data_preprocessor"].pop("batch_augments", None)
        model.pop("train_cfg", None)
        checkpoint = self.checkpoint if self.checkpoint is not ... else published
        if self.checkpoint is ... and type_name(model.get("init_cfg")) == "Pretrained":
            checkpoint = model.pop("init_cfg")["checkpoint"]
        elif self.checkpoint is ... and published is None:
            raise ValueError(
                f"teacher {name} has no checkpoint, and an untrained teacher teaches noise. Add "
                "checkpoint='PATH, URL or open-mmlab://NAME', or checkpoint=None when the model "
                "loads its own weights (timm and Hugging Face with pretrained=True)."
            )
        scope = cfg.get("default_scope") or "mmpretrain"
        return TeacherNetwork(name, model, checkpoint, scope, _image_size(cfg, model))


def _image_size(cfg: Any, model: Any) -> tuple[int, int] | None:
    """Return the size of the images that a model is tested or trained on, if its config says."""
    transforms: list[Any] = []
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        dataset = (cfg.get(loader) or {}).get("dataset")
        while isinstance(dataset, dict):
            transforms += dataset.get("pipeline") or []
            dataset = dataset.get("dataset")
    sizes = [(model.get("backbone") or {}).get("img_size")]
    for transform in transforms:
        if type_name(transform) in ("Resize", "RandomResizedCrop", "CenterCrop", "RandomCrop"):
            size = transform.get("crop_size", transform.get("scale"))
            is_wide = type_name(transform) == "Resize" and isinstance(size, (list, tuple))
            sizes.append(size[::-1] if is_wide else size)  # mmcv has the width first
    for size in reversed(sizes):
        size = (size, size) if isinstance(size, int) else size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return tuple(size)
    return None


def _read_config(config: Any) -> tuple[str, Any, str | None]:
    """Return a name, the config and, for a published model, where its weights are."""
    if not isinstance(config, str):
        model = config.get("model", config) if isinstance(config, dict) else None
        if not isinstance(model, dict) or "type" not in model:
            raise ValueError(
                f"a teacher's config needs a model with a type, got {config!r}. {_FORMS}"
            )
        kind = (model.get("backbone") or model)["type"]
        return kind if isinstance(kind, str) else str(type_name(kind)), config, None
    path = Path(config)
    if path.suffix in (".py", ".yaml", ".yml", ".json"):
        return path.stem, load_config(config), None
    from mmpretrain.apis import ModelHub

    try:
        published = ModelHub.get(config)
    except ValueError:
        raise ValueError(
            f"the teacher {config!r} is neither a config file nor an mmpretrain model "
            f"(mmpretrain.list_models() names those). {_FORMS}"
        ) from None
    return config, published.config, published.weights


# Building the network with its weights.


def broken_weights(network: nn.Module, state: Mapping[str, Any] | None = None) -> str:
    """Name the tensors of a network that make everything it computes meaningless, or return ''.

    Parameters and BatchNorm's statistics must be finite; other buffers, such as masks, may hold
    infinity and no NaN. They are those of ``state``, if given, and not the network's own.
    """
    broken = []
    parameters = {name for name, _ in network.named_parameters()}
    for name, value in (network.state_dict() if state is None else state).items():
        if not isinstance(value, Tensor) or is_lazy(value) or not value.is_floating_point():
            continue
        finite = name in parameters or name.endswith(("running_mean", "running_var"))
        if (~torch.isfinite(value) if finite else torch.isnan(value)).any():
            broken.append(name)
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"{broken[0]}{more}" if broken else ""


def build_network(teacher: TeacherNetwork) -> nn.Module:
    """Build a teacher's network and load its weights."""
    from mmpretrain.registry import MODELS

    model, is_built = teacher.model, isinstance(teacher.model, nn.Module)
    if not is_built:
        with DefaultScope.overwrite_default_scope(teacher.scope):
            model = MODELS.build(copy.deepcopy(model))  # mmpretrain writes into it
    if teacher.checkpoint is None:
        if not is_built and hasattr(model, "init_weights"):
            model.init_weights()
        print_log(f"Teacher {teacher.name} keeps its own weights (checkpoint=None).", "current")
        return model
    source, who = teacher.checkpoint, f"teacher {teacher.name}"
    # MMEngine's own loaders, in a process that does not use our commands, know no safetensors.
    is_file = source.endswith(".safetensors") and "://" not in source
    read = load_from_file if is_file else CheckpointLoader.load_checkpoint
    try:
        checkpoint = read(source, "cpu")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the checkpoint {source} of {who} does not exist. Train it first (tools/train.py with "
            "--train-teacher does), or set model.teacher.checkpoint."
        ) from None
    advice = "Check that config and checkpoint are of the same network."
    load_exactly(model, checkpoint, source, who, advice)
    broken = broken_weights(model)
    if broken:
        raise ValueError(
            f"{source} cannot teach: in {who} its {broken} hold NaN or infinity, as after a "
            "training that diverged; take an earlier checkpoint, or train the teacher again"
        )
    print_log(f"Teacher {teacher.name} loaded from {source}.", "current", logging.INFO)
    return model


def keep_cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Let convolutions and linear layers keep the copies of their weights that autocast makes.

    Autocast keeps its own copies only of weights that are trained, so that a frozen ResNet-152 has
    156 of them cast at every pass. The copies, half as large as the weights, are made when an input
    first comes to a device, and give the same bits. Outside of autocast the weights are used.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d or type(module) is nn.Linear:  # and not what derives from them
            module.forward = _CastForward(module, dtype)


class _CastForward:
    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self._module, self._dtype = module, dtype
        self._copies: dict[torch.device, list[Tensor | None]] = {}

    def __call__(self, inputs: Tensor) -> Tensor:
        module, device = self._module, inputs.device
        autocast = torch.is_autocast_enabled(device.type)
        if not autocast or torch.get_autocast_dtype(device.type) != self._dtype:
            return type(module).forward(module, inputs)
        if device not in self._copies:
            self.copy(device)
        apply = getattr(module, "_conv_forward", F.linear)
        return apply(inputs, *self._copies[device])

    def copy(self, device: torch.device) -> None:
        """Make the copies, of weights that are on this device."""
        parameters = self._module.weight, self._module.bias
        self._copies = {device: [p if p is None else p.to(self._dtype) for p in parameters]}


# The network, frozen, that only gives logits.


class FrozenTeacher:
    r"""A classifier in evaluation mode, without gradient, that maps images to logits.

    It is not an ``nn.Module`` on purpose: kept as a plain attribute of the distiller it is
    outside ``parameters()`` (so outside the optimizer and DDP's buckets), outside
    ``state_dict()`` (so outside checkpoints), and ``model.train()`` cannot switch its dropout
    on. A deep copy, as MMEngine's ``EMAHook`` makes of the model, is the same object.

    The network is built at the first use or by :meth:`build`, with every random generator left
    as it was. When the teacher's config normalises images differently from the student's, its
    input is converted, :math:`x_t = (x_s \sigma_s + \mu_s - \mu_t) / \sigma_t`; both are taken
    to see the channels in the same order. ``mean`` and ``std`` beside the config say what a
    network without a ``data_preprocessor`` takes.

    With ``input_size`` it gets the images in that size. Images of another size than its config
    tests it on are warned of.

    With ``micro_batch=M`` the network sees batches of exactly M images, the last one filled up
    with zeros, so that the compiler meets one shape and the logits of an image do not depend on
    the size of its batch. (On a CPU neither the place in a batch nor the other images nor the
    number of threads changes a bit; batches below 31 images are rounded differently in fp32.)

    Args:
        spec: ``dict(config=..., checkpoint=...)``, where config is a config file (also
            ``mmpretrain::...``), the name of an mmpretrain model, or a model config, and
            checkpoint a path, a URL, ``open-mmlab://NAME`` or ``torchvision://NAME`` (its
            ResNets); an mmpretrain model's own weights when left out, the model's own
            initialisation when None. Also the name alone, a model config with
            ``init_cfg=dict(type='Pretrained', ...)``, or a built module. A config of a distilled
            student means its student. Beside config, ``channels_last``, ``autocast``,
            ``compile``, ``micro_batch``, ``cache`` and ``input_size`` say how it computes
            (:class:`TeacherSettings`).

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
        self.settings = TeacherSettings.from_config(spec)
        self.network = self.settings.resolve()
        self.name = self.network.name
        given = self.settings.cache
        self.cache = None if given is None else TeacherCache(**given)
        self._model: nn.Module | None = None
        self._compiled: Any = None
        self._device = torch.device("cpu")
        self._preprocessor: dict[str, Any] | None = None  # of the student
        self._has_warned = False
        self._conversion: tuple[Tensor, Tensor] | None = None
        self._weights: str | None = None

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
        """Build the network and load its weights, once."""
        if self._model is not None:
            return
        with preserve_random_state():
            self._model = build_network(self.network)
        self._model.eval()  # which does not return every network of mmpretrain
        self._model.requires_grad_(False)
        if self.settings.channels_last:
            self._model.to(memory_format=torch.channels_last)
        precision = _PRECISIONS.get(self.settings.autocast or "float32", torch.float32)
        if precision is not torch.float32 and not self.settings.compile:
            keep_cast_weights(self._model, precision)
        self._match_normalization()

    def set_input_normalization(self, preprocessor: nn.Module) -> None:
        """Convert from now on the images that this data preprocessor, the student's, makes."""
        if self.cache is not None and getattr(preprocessor, "batch_augments", None):
            raise ValueError(UNKEYED)
        described = describe_preprocessor(preprocessor)
        if described == self._preprocessor:
            return
        if self.cache is not None:
            self.cache.forget()
        self._preprocessor = described
        if self._model is not None:
            self._match_normalization()

    def _match_normalization(self) -> None:
        student = self._preprocessor or {}
        teacher = describe_preprocessor(getattr(self._model, "data_preprocessor", None))
        normalizes = [each.get("_enable_normalize") for each in (student, teacher)]
        self._conversion = None
        if self.settings.mean is not None:
            if not normalizes[0]:
                student = dict(mean=[0.0], std=[1.0])
            teacher = dict(mean=[*self.settings.mean], std=[*(self.settings.std or ())])
            if max(teacher["std"]) < 1 < max(student["std"]):
                raise ValueError(
                    f"mean and std of teacher {self.name} are {teacher}, for pixels from 0 to 1; "
                    "multiply them by 255, as the student's are for pixels from 0 to 255"
                )
        elif not all(normalizes):
            if any(normalizes) and None not in normalizes:
                text = (
                    f"Only the data preprocessor of the {'student' if normalizes[0] else 'teacher'}"
                    f" normalises the images; teacher {self.name} gets them as the student does. "
                    "Unless the other's pipeline normalises, give mean=[...], std=[...] beside "
                    "the teacher's config (mean=[0.0], std=[1.0] for pixels as they are)."
                )
                print_log(text, "current", logging.WARNING)
            return
        if (student["mean"], student["std"]) == (teacher["mean"], teacher["std"]):
            return
        mean_s, std_s = (torch.tensor(student[key]).view(-1, 1, 1) for key in ("mean", "std"))
        mean_t, std_t = (torch.tensor(teacher[key]).view(-1, 1, 1) for key in ("mean", "std"))
        scale, shift = std_s / std_t, (mean_s - mean_t) / std_t
        self._conversion = (scale.to(self._device), shift.to(self._device))
        print_log(f"Teacher {self.name} gets the images in its own normalisation.", "current")

    @torch.no_grad()
    def __call__(self, inputs: Tensor, views: Views | None = None) -> Tensor:
        """Return the logits (N, K), at least float32, of images as the student gets them.

        With a cache, which needs ``views``, those that it holds are looked up.
        """
        if self.cache is None:
            return self.compute(inputs)
        return self.cache(inputs, views, self.compute, lambda views: self._describe(inputs))

    @torch.no_grad()
    def compute(self, inputs: Tensor) -> Tensor:
        """Compute the logits, whatever the cache may hold."""
        network, count = self.model, len(inputs)
        inputs = self._as_expected(inputs)
        if self.settings.compile not in (None, False):
            if self._compiled is None:
                more = self.settings.compile if isinstance(self.settings.compile, Mapping) else {}
                self._compiled = torch.compile(network, **{"dynamic": False, **more})
            network = self._compiled
        with self._precision(inputs.device):
            padding = -count % (self.settings.batch_multiple or 1)
            if padding:
                inputs = torch.cat([inputs, inputs.new_zeros(padding, *inputs.shape[1:])])
            size = self.settings.images_a_pass(inputs.device)
            if size is None:
                return self._forward(network, inputs)[:count]
            logits = [self._forward(network, piece) for piece in inputs.split(size)]
        return torch.cat(logits)[:count]

    @torch.no_grad()
    def dry_run(self, inputs: Tensor) -> Tensor:
        """Compute the logits of a few images, neither compiled nor in micro-batches."""
        network, inputs = self.model, self._as_expected(inputs)
        with self._precision(inputs.device):
            return self._forward(network, inputs)

    def _as_expected(self, inputs: Tensor) -> Tensor:
        """Return the images in the teacher's normalisation, and move its network to them."""
        if self._device != inputs.device:
            self._move(inputs.device)
        if self._conversion is not None:
            scale, shift = self._conversion
            inputs = inputs * scale + shift
        size = self.settings.input_size or inputs.shape[-2:]
        if tuple(size) != tuple(inputs.shape[-2:]):
            inputs = F.interpolate(inputs, size, mode="bilinear", antialias=True)
        if self.network.input_size not in (None, tuple(size)) and not self._has_warned:
            self._has_warned = True
            given, own = ("x".join(map(str, each)) for each in (size, self.network.input_size))
            print_log(
                f"Teacher {self.name} gets images of {given} pixels, and its config has images of "
                f"{own}; input_size=({own.replace('x', ', ')}) in its settings resizes them.",
                "current",
                logging.WARNING,
            )
        return inputs

    @torch.compiler.disable  # what is made in a CUDA graph is gone at the next iteration
    def _move(self, device: torch.device) -> None:
        self.model.to(device)
        self._device = device
        if self._conversion is not None:
            scale, shift = self._conversion
            self._conversion = (scale.to(device), shift.to(device))
        for module in self.model.modules():
            if isinstance(module.forward, _CastForward):
                module.forward.copy(device)

    def _precision(self, device: torch.device) -> AbstractContextManager:
        if self.settings.autocast is None:
            return nullcontext()
        if self.settings.autocast == "float32":
            return torch.autocast(device.type, enabled=False)
        return torch.autocast(device.type, dtype=_PRECISIONS[self.settings.autocast])

    def _forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        if self.settings.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        elif self.settings.batch_multiple is not None:
            # Otherwise the images' layout, a student's affair, would decide how they are rounded.
            inputs = inputs.contiguous()
        compiled = network is self._compiled
        logits = as_logits(network(inputs), f"teacher {self.name}")
        if logits.dtype in (torch.bfloat16, torch.float16):
            return logits.float()
        # The next call of a CUDA graph writes to the same memory.
        return logits.clone() if compiled else logits

    def _describe(self, inputs: Tensor) -> dict[str, Any]:
        """Name all that decides the logits of images, for :class:`TeacherCache`."""
        if self._preprocessor is None:
            raise ValueError(
                f"teacher {self.name} has a cache and was not told how images are normalised; "
                "call set_input_normalization(data_preprocessor) first"
            )
        if self._weights is None:
            self._weights = weights_hash(self.model)
        settings, device = self.settings, inputs.device
        with self._precision(device):
            half = torch.is_autocast_enabled(device.type)
            precision = torch.get_autocast_dtype(device.type) if half else torch.float32
        return dict(
            teacher=self.name,
            weights=self._weights,
            model=self.network.model,
            preprocessor=self._preprocessor,
            conversion=[part.flatten().tolist() for part in self._conversion or ()],
            **({} if settings.input_size is None else dict(input_size=settings.input_size)),
            inputs=str(inputs.dtype),
            num_classes=self.num_classes or self.compute(inputs[:1]).shape[-1],
            computed=dict(
                channels_last=bool(settings.channels_last),
                precision=str(precision),
                compile=False if settings.compile is None else settings.compile,
                micro_batch=settings.images_a_pass(device),
            ),
            machine=describe_machine(device),
        )

"""Frozen teachers: what a config says of one, its network, weights and inference."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mmkd_logit.checkpoint import with_mmpretrain_names
from mmkd_logit.datasets.in_memory import Views
from mmkd_logit.utils.arguments import arguments_of, refuse_unknown, type_name

from .parts import preserve_random_state, without_adapters
from .teacher_cache import (
    UNKEYED,
    TeacherCache,
    describe_machine,
    describe_preprocessor,
    weights_hash,
)

_STATISTICS = ("running_mean", "running_var")


def broken_weights(network: nn.Module) -> list[str]:
    """Name the tensors of a network that make everything it computes meaningless.

    Parameters and BatchNorm's statistics must be finite; other buffers, such as masks, may hold
    infinity and no NaN.
    """
    broken = [
        name
        for name, value in network.named_parameters()
        if not is_lazy(value) and not torch.isfinite(value).all()
    ]
    for name, value in network.named_buffers():
        if is_lazy(value) or not value.is_floating_point():
            continue
        statistic = name.rpartition(".")[-1] in _STATISTICS
        if not torch.isfinite(value).all() if statistic else torch.isnan(value).any():
            broken.append(name)
    return broken


def describe_broken(broken: list[str]) -> str:
    """Name some of many."""
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"{broken[0]}{more}"


# What a user may write for a teacher, turned into a model config and a checkpoint.


_FORMS = (
    "Write a teacher as dict(config='configs/wrn/wrn28-4.py', checkpoint='PATH or URL'), as "
    "dict(config=dict(type='ImageClassifier', ...), checkpoint=...), as the name of an mmpretrain "
    "model ('resnet50_8xb32_in1k'), or as a list of these for an ensemble."
)

OPTIONS = ("channels_last", "autocast", "compile", "micro_batch", "cache")


class TeacherSpec(NamedTuple):
    """A resolved teacher.

    Attributes:
        name: How messages call it.
        model: Config of the classifier.
        checkpoint: Where its weights are; None when the model brings its own.
        scope: Registry scope in which the model is built.
        options: How it computes.
    """

    name: str
    model: dict
    checkpoint: str | None
    scope: str
    options: dict[str, Any]


def resolve_teacher(spec: str | dict) -> TeacherSpec:
    """Read the config that a teacher names."""
    if isinstance(spec, str):
        spec = dict(config=spec)
    if not isinstance(spec, dict) or ("config" not in spec and "type" not in spec):
        raise ValueError(f"cannot read a teacher from {spec!r}. {_FORMS}")
    if "config" not in spec:
        spec = dict(config=spec)
    refuse_unknown("a teacher", spec, ("config", "checkpoint", *OPTIONS))
    options = {key: copy.deepcopy(spec[key]) for key in OPTIONS if key in spec}

    name, cfg, published = _read_config(spec["config"])
    model = cfg.get("model", cfg)
    model = copy.deepcopy(model.to_dict() if isinstance(model, ConfigDict) else dict(model))
    preprocessor = cfg.get("data_preprocessor")
    while type_name(model) == "LogitDistiller":
        preprocessor = model.get("data_preprocessor", preprocessor)
        model = model["student"]  # a distilled student teaches as the plain network it is
    if preprocessor is not None:
        model.setdefault("data_preprocessor", copy.deepcopy(dict(preprocessor)))
    if model.get("data_preprocessor"):
        model["data_preprocessor"].pop("batch_augments", None)
    model.pop("train_cfg", None)  # batch augmentation is the student's, both see the same images

    checkpoint = _find_checkpoint(spec, model, published, name)
    return TeacherSpec(name, model, checkpoint, cfg.get("default_scope") or "mmpretrain", options)


def _read_config(config: Any) -> tuple[str, dict, str | None]:
    """Return a name, the config and, for a published model, where its weights are."""
    if isinstance(config, dict):
        model = config.get("model", config)
        if not isinstance(model, dict) or "type" not in model:
            raise ValueError(
                f"a teacher's config needs a model with a type, got {config!r}. {_FORMS}"
            )
        backbone = model.get("backbone") or {}
        return str(backbone.get("type") or model.get("type")), config, None
    if not isinstance(config, str):
        raise ValueError(f"cannot read a teacher's config from {config!r}. {_FORMS}")
    if Path(config).suffix in (".py", ".yaml", ".yml", ".json"):
        if not config.startswith("mmpretrain::") and not Path(config).is_file():
            raise FileNotFoundError(
                f"the teacher's config {config} does not exist (seen from {Path.cwd()})"
            )
        if config.startswith("mmpretrain::"):
            from mmengine.hub import get_config

            return Path(config).stem, get_config(config), None
        return Path(config).stem, Config.fromfile(config), None

    from mmpretrain.apis import ModelHub

    try:
        published = ModelHub.get(config)
    except ValueError:
        raise ValueError(
            f"the teacher {config!r} is neither a config file nor an mmpretrain model "
            f"(mmpretrain.list_models() names those). {_FORMS}"
        ) from None
    return config, published.config, published.weights


def _find_checkpoint(spec: dict, model: dict, published: str | None, name: str) -> str | None:
    if "checkpoint" in spec:
        checkpoint = spec["checkpoint"]
        if checkpoint is not None and (not isinstance(checkpoint, str) or not checkpoint):
            raise ValueError(
                f"the checkpoint of teacher {name} must be a path, a URL, open-mmlab://NAME or "
                f"None, got {checkpoint!r}"
            )
        return checkpoint
    init_cfg = model.get("init_cfg")
    if isinstance(init_cfg, dict) and type_name(init_cfg) == "Pretrained":
        return model.pop("init_cfg")["checkpoint"]
    if published is None:
        raise ValueError(
            f"teacher {name} has no checkpoint, and an untrained teacher teaches noise. Add "
            "checkpoint='PATH, URL or open-mmlab://NAME', or checkpoint=None when the model "
            "loads its own weights (timm and Hugging Face with pretrained=True)."
        )
    return published


# The network of a teacher, built and given its weights.


def freeze(model: nn.Module) -> nn.Module:
    """Put a network into evaluation mode and take the gradient from its parameters."""
    model.eval()
    return model.requires_grad_(False)


def build_network(spec: TeacherSpec) -> nn.Module:
    """Build a teacher's network and load its weights."""
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope(spec.scope):
        model = MODELS.build(copy.deepcopy(spec.model))  # mmpretrain writes into it
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
        raise ValueError(
            f"{spec.checkpoint} does not fit teacher {spec.name}: {' '.join(str(error).split())}. "
            "Check that config and checkpoint are of the same network."
        ) from None
    # BatchNorm's counter is not used in evaluation and missing from old checkpoints.
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"{spec.checkpoint} does not fit teacher {spec.name}: missing keys "
            f"{missing or 'none'}, unexpected keys {list(result.unexpected_keys) or 'none'}. "
            "Check that config and checkpoint are of the same network."
        )
    broken = broken_weights(model)
    if broken:
        raise ValueError(
            f"{spec.checkpoint} cannot teach: in teacher {spec.name} its {describe_broken(broken)} "
            "hold NaN or infinity, as after a training that diverged; take an earlier checkpoint, "
            "or train the teacher again"
        )


# How a frozen network computes: memory layout, precision, compiler, size of its batches.


_PRECISIONS = dict(bfloat16=torch.bfloat16, float16=torch.float16, float32=torch.float32)


class TeacherInference:
    """Run a network that is in evaluation mode, faster than by just calling it.

    With ``micro_batch=M`` the network sees batches of exactly M images, the last one filled up
    with images of zeros, so that the compiler meets one shape and an image's result does not
    depend on how many came with it. (Measured on CPU for wide residual networks, in fp32, bf16
    and fp16: neither the position in a batch of one size nor the images beside it nor the number
    of threads changes a bit of an image's logits, sizes from 31 on agree, and below that fp32
    differs in its last bits.)

    Example:
        >>> run = TeacherInference(micro_batch=2)
        >>> run(nn.Linear(4, 3), torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        channels_last: bool = False,
        autocast: str | None = None,
        compile: bool | Mapping[str, Any] = False,
        micro_batch: int | None = None,
    ) -> None:
        if not isinstance(channels_last, bool):
            raise ValueError(f"a teacher's channels_last is True or False, got {channels_last!r}")
        if autocast is not None and (not isinstance(autocast, str) or autocast not in _PRECISIONS):
            raise ValueError(
                f"a teacher's autocast is None or one of {', '.join(map(repr, _PRECISIONS))}, "
                f"got {autocast!r}"
            )
        if not isinstance(compile, (bool, Mapping)):
            raise ValueError(
                "a teacher's compile is True, False or a dict of torch.compile's arguments, "
                f"got {compile!r}"
            )
        if isinstance(compile, Mapping):
            known = [name for name in arguments_of(torch.compile)[0] if name != "model"]
            refuse_unknown("a teacher's compile", compile, known)
        if micro_batch is not None and (type(micro_batch) is not int or micro_batch < 1):
            raise ValueError(
                f"a teacher's micro_batch is a positive integer or None, got {micro_batch!r}"
            )
        self.channels_last = channels_last
        self.autocast = autocast
        self.compile = dict(compile) if isinstance(compile, Mapping) else compile
        self.micro_batch = micro_batch
        self._run: Callable[[Tensor], Any] | None = None

    @property
    def whole_forward(self) -> bool:
        """Whether hooks on the network's modules see one ordinary forward of the whole batch."""
        return self.micro_batch is None and self.compile is False

    def settings(self, device: torch.device) -> dict[str, Any]:
        """Describe what decides the bits of the result, beside the network and its input."""
        return dict(
            channels_last=self.channels_last,
            precision=str(self._precision(device)),
            compile=self.compile,
            micro_batch=self.micro_batch,
        )

    def __call__(self, model: nn.Module, inputs: Tensor) -> Any:
        """Return what the network gives; half-precision tensors as float32."""
        run = self._prepare(model)
        with self._in_precision(inputs.device):
            if self.micro_batch is None:
                return self._once(run, inputs)
            outputs = [self._once(run, piece) for piece in self._pieces(inputs)]
        if not all(isinstance(output, Tensor) for output in outputs):
            return outputs[0]
        return torch.cat(outputs)[: len(inputs)]

    def plainly(self, model: nn.Module, inputs: Tensor) -> Any:
        """Return what the network gives, in its precision, but not compiled nor in pieces."""
        with self._in_precision(inputs.device):
            output = model(inputs)
        half = isinstance(output, Tensor) and output.dtype in (torch.bfloat16, torch.float16)
        return output.float() if half else output

    def _prepare(self, model: nn.Module) -> Callable[[Tensor], Any]:
        if self._run is None:
            if self.channels_last:
                model.to(memory_format=torch.channels_last)
            self._run = model
            if self.compile is not False:
                options = self.compile if isinstance(self.compile, dict) else {}
                self._run = torch.compile(model, **{"dynamic": False, **options})
        return self._run

    def _once(self, run: Callable[[Tensor], Any], inputs: Tensor) -> Any:
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        elif self.micro_batch is not None:
            # Otherwise the images' layout, a student's affair, would decide how they are rounded.
            inputs = inputs.contiguous()
        if self.compile is not False:
            torch.compiler.cudagraph_mark_step_begin()
        output = run(inputs)
        if not isinstance(output, Tensor):
            return output
        if output.dtype in (torch.bfloat16, torch.float16):
            return output.float()
        # The next call of a CUDA graph writes to the same memory.
        return output if self.compile is False else output.clone()

    def _pieces(self, inputs: Tensor) -> Iterator[Tensor]:
        assert self.micro_batch is not None
        for piece in inputs.split(self.micro_batch):
            lacking = self.micro_batch - len(piece)
            if lacking:
                piece = torch.cat([piece, piece.new_zeros(lacking, *piece.shape[1:])])
            yield piece

    def _precision(self, device: torch.device) -> torch.dtype:
        if self.autocast is not None:
            return _PRECISIONS[self.autocast]
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return torch.float32

    @contextmanager
    def _in_precision(self, device: torch.device) -> Iterator[None]:
        if self.autocast is None:
            yield
            return
        dtype = _PRECISIONS[self.autocast]
        if dtype is torch.float16 and device.type == "cpu" and not _cpu_has_float16():
            raise ValueError(
                "this CPU has no float16 instructions, which makes a teacher with "
                "autocast='float16' slower than without; use autocast='bfloat16'"
            )
        if dtype is torch.float32:
            with torch.autocast(device.type, enabled=False):
                yield
            return
        with torch.autocast(device.type, dtype=dtype):
            yield


def _cpu_has_float16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


# A trained classifier, frozen whole, that only gives logits.


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

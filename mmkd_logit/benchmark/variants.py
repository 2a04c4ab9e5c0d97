"""The ways to train a kd config that are timed beside each other."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from mmengine.config import Config

from .bare_session import BareSession
from .base_config import edited
from .data_forms import by_pipeline, in_memory
from .runner_session import Probe, RunnerSession


class Session(Protocol):
    """Something that trains step by step."""

    batch_size: int
    stock: int

    def step(self) -> None: ...
    def loader(self) -> Callable[[], Any]: ...
    def probes(self) -> list[Probe]: ...
    def state(self) -> list[Any]: ...
    def device(self) -> torch.device: ...


class Variant(NamedTuple):
    """One way to train.

    Attributes:
        text: What it is, in a line.
        open: From the base config, the device and a number of data workers to a session.
    """

    text: str
    open: Callable[[Config, torch.device, int], Session]


class Comparison(NamedTuple):
    """A ratio of speeds that this project has a goal for.

    Attributes:
        variant, reference: Names of variants.
        cpu: The goal on a CPU, or None.
        cuda: The goal on a GPU, or None.
    """

    variant: str
    reference: str
    cpu: float | None
    cuda: float | None


_Open = Callable[[Config, torch.device, int], Session]
_Edit = Callable[[Config], Config]


def _bare(**settings: Any) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        return BareSession(by_pipeline(edited(cfg), workers), device, **settings)

    return start


def _plain(cfg: Config, device: torch.device, workers: int) -> Session:
    cfg = by_pipeline(edited(cfg), workers)
    hooks = cfg.default_hooks
    hooks.pop("runtime_info", None)  # MMEngine's own, where the config has another
    return RunnerSession(cfg)


def _memory(*edits: _Edit) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        cfg = in_memory(edited(cfg))
        for edit in edits:
            cfg = edit(cfg)
        return RunnerSession(cfg)

    return start


def _student(cfg: Config) -> Config:
    """Let no teacher run; what is left is the student's own training."""
    cfg.model.alpha = 0.0
    cfg.model.pop("feature_kd", None)
    return cfg


_FAST: dict[str, Any] = dict(bf16=True, channels_last=True)
VARIANTS = {
    "bare": Variant("usual research code, fp32", _bare()),
    "bare-fast": Variant("the same in bf16, channels_last", _bare(**_FAST)),
    "bare-fixed": Variant("bare, one batch all along", _bare(fixed_batch=True)),
    "bare-fast-fixed": Variant("bare-fast, one batch", _bare(fixed_batch=True, **_FAST)),
    "plain": Variant("mmpretrain's pipeline, MMEngine's hooks", _plain),
    "memory": Variant("images in memory", _memory()),
    "student": Variant("in memory, the student without a teacher", _memory(_student)),
}
COMPARISONS = [
    Comparison("memory", "bare", 1.0, None),
    Comparison("memory", "bare-fixed", 0.97, 0.85),
]

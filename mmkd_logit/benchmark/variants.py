"""The ways to train a kd config that are timed beside each other."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from mmengine.config import Config

from .bare_session import BareSession
from .base_config import edited
from .runner_session import Probe, RunnerSession


class Session(Protocol):
    """Something that trains step by step."""

    batch_size: int

    def step(self) -> None: ...
    def loader(self) -> Callable[[], Any]: ...
    def probes(self) -> list[Probe]: ...
    def state(self) -> list[Any]: ...
    def device(self) -> torch.device: ...


class Variant(NamedTuple):
    """One way to train.

    Attributes:
        text: What it is, in a line.
        open: From the base config and the device to a session.
    """

    text: str
    open: Callable[[Config, torch.device], Session]


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


def _bare(**settings: Any) -> Callable[[Config, torch.device], Session]:
    return lambda cfg, device: BareSession(cfg, device, **settings)


def _run(*edits: Callable[[Config], Config]) -> Callable[[Config, torch.device], Session]:
    def start(cfg: Config, device: torch.device) -> Session:
        cfg = edited(cfg)
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
    "plain": Variant("mmpretrain's pipeline, stock hooks", _run()),
    "student": Variant("the student without a teacher", _run(_student)),
}
COMPARISONS: list[Comparison] = []

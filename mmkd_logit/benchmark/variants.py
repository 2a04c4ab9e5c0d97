"""The ways to train a kd config that are timed beside each other."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from mmengine.config import Config

from mmkd_logit.engine.fast import make_fast
from mmkd_logit.engine.teachers import change_teachers
from mmkd_logit.engine.together_config import join_configs
from mmkd_logit.models.teacher_cache import TeacherCache

from .bare_session import BareSession
from .base_config import edited
from .data_forms import by_pipeline, in_memory
from .runner_session import Probe, RunnerSession
from .shared_table import LOSSES
from .teacher_session import TeacherSession


class Session(Protocol):
    """Something that trains step by step."""

    batch_size: int
    stock: int
    students: int

    def step(self) -> None: ...
    def loader(self) -> Callable[[], Any]: ...
    def probes(self) -> list[Probe]: ...
    def state(self) -> list[Any]: ...
    def device(self) -> torch.device: ...
    def caches(self) -> list[TeacherCache]: ...


_Open = Callable[[Config, torch.device, int], Session]
_Edit = Callable[[Config], None]


class Variant(NamedTuple):
    """One way to train.

    Attributes:
        text: What it is, in a line.
        open: From the base config, the device and a number of data workers to a session.
    """

    text: str
    open: _Open


def _bare(**settings: Any) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        return BareSession(by_pipeline(edited(cfg), workers), device, **settings)

    return start


def _plain(cfg: Config, device: torch.device, workers: int) -> Session:
    cfg = by_pipeline(edited(cfg), workers)
    cfg.default_hooks.pop("runtime_info", None)  # MMEngine's own, where the config has another
    return RunnerSession(cfg)


def _memory(*edits: _Edit, session: type[RunnerSession] = RunnerSession) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        cfg = in_memory(edited(cfg))
        for edit in edits:
            edit(cfg)
        return session(cfg)

    return start


def _warm(*edits: _Edit) -> _Open:
    """Fill the cache with noise: a look-up takes as long, whatever is found."""

    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        session = _memory(_cached, *edits)(cfg, device, workers)
        session.step()  # opens the cache
        for store in (store for cache in session.caches() for store in cache.stores):
            rows = 2**16
            noise = torch.randn(rows, store.num_classes, device=device)
            noise = noise.to(getattr(torch, store.dtype))
            for first in range(0, store.size, rows):
                numbers = torch.arange(first, min(first + rows, store.size)).numpy()
                store.put(numbers, noise[: len(numbers)])
            store.flush()
        return session

    return start


def _student(cfg: Config) -> None:
    """Let no teacher run; what is left is the student's own training."""
    cfg.model.alpha = 0.0
    cfg.model.pop("feature_kd", None)


def _cached(cfg: Config) -> None:
    storage = "device" if torch.cuda.is_available() else "memory"

    def change(spec: Any) -> Any:
        if not isinstance(spec, dict) or "config" not in spec:
            spec = dict(config=spec)
        return dict(spec, cache=dict(storage=storage))

    change_teachers(cfg, change)


def _table_row(cfg: Config) -> None:
    """Train the students of a row of Table 1 with one pass of the teacher."""
    members = {}
    for number, loss in enumerate(LOSSES.values()):
        member = members[f"s{number}"] = copy.deepcopy(cfg)
        member.work_dir = f"{cfg.work_dir}/{number}"
        if loss is None:
            _student(member)
        else:
            member.model.loss_kd = loss
    for key, value in join_configs(members).items():
        cfg[key] = value


_FAST: dict[str, Any] = dict(bf16=True, channels_last=True, fused=True)
VARIANTS = {
    "bare": Variant("usual research code, fp32", _bare()),
    "bare-fast": Variant("the same in bf16, channels_last, fused", _bare(**_FAST)),
    "bare-fixed": Variant("bare, one batch all along", _bare(fixed_batch=True)),
    "bare-fast-fixed": Variant("bare-fast, one batch", _bare(fixed_batch=True, **_FAST)),
    "plain": Variant("mmpretrain's pipeline, MMEngine's hooks", _plain),
    "memory": Variant("images in memory", _memory()),
    "memory+cache-cold": Variant("and a cache of logits, empty", _memory(_cached)),
    "memory+cache": Variant("and a full one", _warm()),
    "student": Variant("memory without a teacher", _memory(_student)),
    "teacher": Variant("the teacher's pass alone", _memory(session=TeacherSession)),
    "shared": Variant("memory, 7 students", _memory(_table_row)),
    "fast": Variant("memory, --fast", _memory(make_fast)),
    "fast+cache-cold": Variant("and an empty cache", _memory(_cached, make_fast)),
    "fast+cache": Variant("and a full one", _warm(make_fast)),
    "student-fast": Variant("fast without a teacher", _memory(_student, make_fast)),
    "teacher-fast": Variant("the teacher's pass, fast", _memory(make_fast, session=TeacherSession)),
    "shared-fast": Variant("fast, 7 students", _memory(make_fast, _table_row)),
}

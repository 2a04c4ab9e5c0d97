"""A config's run, from its start or from a checkpoint, to its end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit._arguments import type_name
from mmkd_logit._run_file import note_start
from mmkd_logit.hooks import PreemptionHook
from mmkd_logit.hooks._saving import POINTER

from ._loader_workers import end_workers
from .cache import log_caches
from .checkpoint import install_safe_checkpoint_loading
from .errors import TrainingStarted
from .last_checkpoint import find_checkpoint, missing_text
from .made_of_hook import MadeOfHook, allow_other_labels
from .provenance import origin_of, write_origin
from .resumable_loops import use_resumable_loop
from .resumable_runner import ResumableRunner
from .teachers import FINAL


def apply_resume(cfg: Config, resume: str | None) -> None:
    """Make a run continue; it starts from the beginning if there is nothing to continue.

    Args:
        cfg: Changed in place.
        resume: A checkpoint, ``'auto'`` for the last one in the work folder, which may have been
            moved since, or None.
    """
    if resume == "auto":
        found: list[Any] = [None, []]
        if is_main_process():
            found = [*find_checkpoint(cfg.work_dir)]
        broadcast_object_list(found)  # a disk may show another process something else
        last, problems = found
        if is_main_process() and problems:
            text = missing_text(cfg.work_dir, problems)
            if last is not None:
                text = f"warning: {'; '.join(problems)}; going on from {last}"
            print(text, file=sys.stderr, flush=True)
        elif is_main_process() and last is None:
            text = f"there is nothing to resume in {cfg.work_dir}; starting from the beginning"
            print(text, flush=True)
        resume = None if last is None else str(last)
    if resume is not None:
        cfg.resume, cfg.load_from = True, resume


_ALWAYS = (
    "mmkd_logit.ProgressBarHook",
    "mmkd_logit.LabelNoiseHook",
    "mmkd_logit.ResumeStateHook",
    "mmkd_logit.OwnBestCheckpointHook",
    "mmkd_logit.SameBuffersHook",
    "mmkd_logit.RunCheckHook",
    "mmkd_logit.FiniteLossHook",
)
_MMENGINES = "CheckpointHook"


class _MarkStart(Hook):
    """Notes that training has begun, and from what."""

    priority = "VERY_HIGH"

    def __init__(self, started: TrainingStarted, origin: dict[str, Any]) -> None:
        self.started = started
        self.origin = origin

    def before_train(self, runner: Runner) -> None:
        Runner.dump_config(runner)  # which a QuietRunner does not by itself
        if is_main_process():
            if runner.iter == 0:  # checkpoints of an earlier run here are not this run's
                Path(runner.work_dir, POINTER).unlink(missing_ok=True)
            if runner.iter < runner.max_iters:  # nor may they be taken for it by its origin
                Path(runner.work_dir, FINAL).unlink(missing_ok=True)
            write_origin(runner.work_dir, self.origin)
            note_start(runner.work_dir, Path(runner.log_dir).name, anew=runner.iter == 0)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self.started.value:
            self.started.value, self.started.iteration = True, runner.iter


def run_training(
    cfg: Config,
    resume: str | None,
    started: TrainingStarted,
    *more_hooks: Hook,
    resume_changed: bool = False,
) -> Runner:
    """Build a Runner and train.

    Args:
        cfg: A complete config; its teachers are there.
        resume: As of :func:`apply_resume`.
        started: Set once the first iteration begins.
        *more_hooks: Beside those of the config.
        resume_changed: Whether to resume from a checkpoint of a run that differs.

    Returns:
        The Runner, trained.

    Raises:
        ValueError: If the checkpoint cannot be resumed, or is of a run that differs.
    """
    started.work_dir = cfg.work_dir
    install_safe_checkpoint_loading()  # after the config's custom_imports
    hooks = list(cfg.get("custom_hooks") or [])
    known = [type_name(hook) for hook in hooks]
    added = [name for name in _ALWAYS if type_name(name) not in known]
    cfg.custom_hooks = [*hooks, *(dict(type=name) for name in added)]
    if resume_changed:
        allow_other_labels(cfg)
    origin = origin_of(cfg)
    _save_whole_checkpoints(cfg)
    apply_resume(cfg, resume)
    keeper = MadeOfHook(origin["computed"], resume_changed)
    keeper.look_ahead(cfg)
    use_resumable_loop(cfg)
    runner = ResumableRunner.from_cfg(cfg)
    runner.computed = origin["computed"]
    preemption = PreemptionHook()
    for each in (_MarkStart(started, origin), keeper, *more_hooks, preemption):
        runner.register_hook(each)
    try:
        with _told_of(preemption, started):
            runner.train()
    finally:
        end_workers(runner)
    log_caches(runner)
    return runner


def _save_whole_checkpoints(cfg: Config) -> None:
    """Put our hook in the place of MMEngine's, which writes checkpoints in place."""
    defaults = cfg.get("default_hooks") or {}
    defaults.setdefault("checkpoint", dict(type=_MMENGINES, interval=1))  # MMEngine's own
    cfg.default_hooks = defaults
    for hook in (*cfg.default_hooks.values(), *cfg.custom_hooks):
        if isinstance(hook, dict) and type_name(hook) == _MMENGINES:
            hook["type"] = "mmkd_logit.AtomicCheckpointHook"


@contextmanager
def _told_of(preemption: PreemptionHook, started: TrainingStarted) -> Iterator[None]:
    """Say how a run goes on that was asked to stop."""
    try:
        yield
    except SystemExit:
        if preemption.stopped and is_main_process():
            advice = f"; continue with: {started.again}" if started.again else ""
            print(f"{preemption.stopped}{advice}", file=sys.stderr, flush=True)
        raise
    finally:
        preemption.release()

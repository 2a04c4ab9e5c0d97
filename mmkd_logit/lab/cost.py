"""The plan of ``tools/reproduce.py --dry-run``: what is done, and what the rest costs."""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmkd_logit.engine.config import (
    EXACT,
    change_teachers,
    describe_numerics,
    model_teachers,
    seed_of,
)
from mmkd_logit.engine.fingerprint import describe_machine, should_resume
from mmkd_logit.engine.runner import end_workers
from mmkd_logit.models.teacher_cache import words_of_row

from .benchmark.sessions import RunnerSession, edited, keep_only_steps
from .benchmark.speed import interleave, round_of
from .scheduler import Scheduler


def describe_plan(scheduler: Scheduler, rows: Sequence[dict], timer: "Timer | None") -> list[str]:
    """List the runs, which are done, and the estimated cost of the others.

    The cost of a run is its epochs times the seconds that an epoch of the same config took in a
    results row, on this device if there is such a row; without a row, those that a timer measures.
    """
    device = describe_machine()["device"]
    lines, known, unknown = [], 0.0, 0
    for folder, row in scheduler.find_all().items():
        run, cfg = scheduler.runs[folder], scheduler.configs[folder]
        if row is not None:
            state = "done, but for its logits" if scheduler.needs_export(folder) else "done"
        else:
            cut_off = should_resume(cfg, scheduler.pool.processes)
            state = "cut off, would go on" if cut_off else "to do"
            numerics = describe_numerics(cfg)
            alike = [each for each in rows if each.get("numerics", EXACT) == numerics]
            given = (*run.overrides, *run.inputs)
            seconds = seconds_of(run.config, cfg.train_cfg.get("max_epochs"), alike, device, given)
            if seconds is None and timer is not None:
                seconds = timer.seconds_of(folder)
            known, unknown = known + (seconds or 0), unknown + (seconds is None)
            state += ", cost unknown" if seconds is None else f", about {_time(seconds)}"
        lines.append(f"{folder}: {state} (seed {seed_of(cfg)})")
    missing = sum(row is None for row in scheduler.found.values())
    at_least = "at least " if unknown else ""
    total = f"{at_least}{_time(known)} of one device" if known or not missing else "cost unknown"
    note = f"; no measured speed for {unknown} of them" if unknown else ""
    if timer is not None and timer.caches:
        size = sum(timer.caches.values()) / 1e9
        note += f"; the caches of teachers' logits take up to {size:.2g} GB of disk"
    return [*lines, f"{missing} of {len(lines)} runs to do: {total}{note}"]


def seconds_of(
    config: str,
    epochs: int | None,
    rows: Sequence[dict],
    device: str,
    overrides: Sequence[str] = (),
) -> float | None:
    """Estimate the training time of a config from measured runs of it, on as many images."""
    load = _load(dict(text.split("=", 1) for text in overrides))
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        alone = not row.get("resumed_at") and row.get("group_size", 1) == 1
        same = Path(str(row.get("config"))).name == Path(config).name
        same = same and _load(row.get("overrides") or {}) == load
        if same and alone and row.get("epochs"):
            speeds[row.get("device") == device].append(row["train_seconds"] / row["epochs"])
    measured = speeds[True] or speeds[False]
    return statistics.median(measured) * epochs if measured and epochs else None


def _load(overrides: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """Return what overrides say of the training data, and how many teachers they list."""
    data = {
        key: str(value).replace(" ", "")
        for key, value in overrides.items()
        if key.startswith("train_dataloader.") and not key.endswith(".scores")
    }
    return data, str(overrides.get("model.teacher", "")).count("checkpoint")


class Timer:
    """Estimates what runs cost from a few training steps of each network, data set and precision.

    Teachers have random weights, which take as long. Their forward passes count once for the
    students that share a cache, as it is filled before these start; what a single student finds
    in its cache is left out, so that it may be faster.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._measured: dict[str, tuple[float, int]] = {}  # by what is computed
        self.caches: dict[str, int] = {}  # bytes with all views in them, by the teacher's file

    def seconds_of(self, folder: str) -> float | None:
        """Estimate the seconds of a run that trains by epochs."""
        cfg = self.scheduler.configs[folder]
        epochs = cfg.train_cfg.get("max_epochs")
        if not epochs:
            return None
        seconds, views = self._measure(cfg)
        for teacher in model_teachers(cfg):
            cache = teacher.cache or {}
            if cache.get("storage") == "disk":
                classes = cfg.model.student.head.num_classes
                words = words_of_row(classes, cache.get("dtype", "float32"))
                self.caches[str(teacher.checkpoint)] = views * 4 * (words + 1)
        jobs = [job for job in self.scheduler.precomputes if folder in job.students]
        if jobs and len(jobs[0].students) > 1:
            student = edited(cfg)
            student.model.pop("weights", None)
            student.model.alpha = 0.0
            alone, _ = self._measure(student)
            seconds = alone + max(0.0, seconds - alone) / len(jobs[0].students)
        return seconds * epochs

    def _measure(self, cfg: Config) -> tuple[float, int]:
        """Return the seconds of an epoch, and how many numbered views of its images there are."""
        cfg = edited(cfg)
        keep_only_steps(cfg)
        device = torch.device(get_device())
        # A cache would hold what is timed.
        without = dict(checkpoint=None, cache=None)
        change_teachers(
            cfg, lambda t: t.as_config() | without | dict(micro_batch=t.images_a_pass(device))
        )
        model = dict(cfg.model, loss_kd=None, alpha=bool(cfg.model.get("alpha", 1)))
        parts = [model, cfg.train_dataloader, cfg.optim_wrapper]
        key = json.dumps(parts, default=str, sort_keys=True)
        if key not in self._measured:
            with tempfile.TemporaryDirectory() as folder:
                cfg.work_dir = folder
                session = RunnerSession(cfg)
                step = round_of(session.step, device, session.stock)
                (costs,) = interleave([step], seconds=1.0)
                times = statistics.median(cost.wall for cost in costs) * len(session.loader)
                samples = next(iter(session.loader))["data_samples"]
                end_workers(session.runner)
            views = getattr(samples, "views", None)
            count = 0 if views is None else views.samples * views.per_sample
            self._measured[key] = times, count
        return self._measured[key]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

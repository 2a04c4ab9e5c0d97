"""Another teacher, loss or alpha from some epoch on."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_count, check_flag, refuse_unknown

from .networks import averaged_networks, unwrapped

if TYPE_CHECKING:  # command lines read the hooks before they silence mmpretrain's warnings
    from mmkd_logit.models import FrozenTeacher, LogitDistiller

LOOKED_AT = ("ce", "kd", "teacher_agreement")  # what a distiller logs beside its losses


class Stage(NamedTuple):
    """A part of a run."""

    begin: int  # number of epochs, or iterations, before it
    changes: dict[str, Any]  # arguments of LogitDistiller.switch


def _read_stage(stage: Any, where: str) -> Stage:
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models import build, distiller

    checks: dict[str, Any] = dict(
        teacher=distiller.read_teachers,
        loss_kd=build.build_loss,
        alpha=distiller.check_alpha,
        ensemble=distiller.check_ensemble,
    )
    if not isinstance(stage, dict):
        raise ValueError(f"{where} must be a dict with begin and what changes, got {stage!r}")
    refuse_unknown(where, stage, ("begin", *checks))
    begin = check_count(f"{where}.begin", stage.get("begin"), 0)
    changes = {key: stage[key] for key in checks if stage.get(key) is not None}
    if not changes:
        raise ValueError(f"{where} changes nothing; name one of {', '.join(checks)}")
    for key, value in changes.items():
        try:
            checks[key](value)
        except (ValueError, KeyError, TypeError) as error:
            reason = error.args[0] if error.args else error  # str of a KeyError has quotes
            raise ValueError(f"{where}.{key}: {reason}") from None
    return Stage(begin, changes)


def merge_changes(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return what several stages have changed together: the last value of each setting."""
    return {key: value for stage in stages for key, value in stage.changes.items()}


def use_last_stage(runner: Runner) -> None:
    """Give a model that is tested without training what its last stage has."""
    for hook in runner.hooks:
        if isinstance(hook, SequentialTeacherHook):
            _distiller(runner).switch(**merge_changes(hook.stages))


@HOOKS.register_module()
class SequentialTeacherHook(Hook):
    """Change teacher, loss or weight of a :class:`LogitDistiller` while it trains.

    So a run begins with KL and ends with MSE, or begins with a large teacher and ends with a
    medium one (Kim et al., IJCAI 2021, do both in separate runs). The distiller's own settings
    hold from the start; what a stage does not name stays as it was. Student, optimizer, momenta
    and learning rate are not changed.

    The stage follows from the number of epochs (or iterations) done, so a run that is resumed, at
    a boundary or between two, continues in its stage, and all processes agree.

    Teachers of later stages are built before the first iteration, on the CPU of each process,
    where a checkpoint that does not fit is an error; they move to the device when first used. At
    a switch the earlier teachers are dropped, from ``EMAHook``'s copy of the model too. Log lines
    average the terms anew, and a model compiled by the config's ``compile`` is compiled anew.

    Args:
        stages: One dict for each, in the order of ``begin``, the number of epochs done before
            it (0 is the start, 100 the moment of a scheduler's milestone 100), and at least one
            of the distiller's ``teacher``, ``loss_kd``, ``alpha`` and ``ensemble``, in the same
            forms. A list of teachers is an ensemble; None is as good as not named.
        by_epoch: Whether ``begin`` counts epochs; otherwise iterations, in either train loop.

    Raises:
        ValueError: If a stage is misspelt, changes nothing, has values that do not fit or is not
            in order; before training, if a stage begins after its end, ``by_epoch`` does not fit
            the train loop, or the model is no distiller.
        FileNotFoundError: If a teacher's config, or before training its checkpoint, is missing.

    Example:
        >>> from mmkd_logit.hooks import SequentialTeacherHook
        >>> hook = SequentialTeacherHook([
        ...     dict(begin=100, loss_kd=dict(type='mmkd_logit.LogitMSELoss')),
        ...     dict(begin=150, alpha=0.5)])
        >>> [stage.begin for stage in hook.stages]
        [100, 150]
    """

    # Its checks come before other hooks clear the work folder of an earlier run.
    priority = "VERY_HIGH"

    def __init__(self, stages: list[dict], by_epoch: bool = True) -> None:
        if not isinstance(stages, (list, tuple)) or not stages:
            raise ValueError(
                "stages must be a list of at least one dict(begin=..., teacher=..., loss_kd=..., "
                f"alpha=..., ensemble=...), got {stages!r}"
            )
        # The teachers read here are dropped: their networks are built when training starts.
        self.stages = [_read_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)]
        begins = [stage.begin for stage in self.stages]
        if any(later <= earlier for earlier, later in pairwise(begins)):
            raise ValueError(
                f"stages must be in the order of their begin, each later; got {begins}"
            )
        self.by_epoch = check_flag("by_epoch", by_epoch)
        self._stage = 0  # how many stages have begun
        self._teachers: dict[int, list[FrozenTeacher]] = {}  # built, of stages to come

    def before_train(self, runner: Runner) -> None:
        """Check the run, build the teachers to come, and go to the stage that is resumed."""
        distiller = _distiller(runner)
        self._check_end(runner)
        self._stage, begun = 0, self._begun(runner)
        teachers = {i: stage.changes.get("teacher") for i, stage in enumerate(self.stages)}
        # Of the stages that are over only the last teacher counts.
        last = max((i for i in range(begun) if teachers[i] is not None), default=begun)
        self._teachers = {
            i: distiller.prepare(teacher)
            for i, teacher in teachers.items()
            if i >= last and teacher is not None
        }
        trial = copy.copy(distiller)  # a stage that does not fit is an error now
        for i, stage in enumerate(self.stages):
            try:
                trial.switch(**{**stage.changes, "teacher": self._teachers.get(i)})
            except ValueError as error:
                raise ValueError(f"stages[{i}]: {error}") from None
        self._follow(runner)

    def later_teachers(self) -> list[FrozenTeacher]:
        """Return the teachers of stages to come, once they are built."""
        return [teacher for teachers in self._teachers.values() for teacher in teachers]

    def before_train_epoch(self, runner: Runner) -> None:
        """Switch, if the epochs done say so."""
        self._follow(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Switch, if the iterations done say so."""
        if not self.by_epoch:
            self._follow(runner)

    def _begun(self, runner: Runner) -> int:
        done = self._done(runner)
        return sum(stage.begin <= done for stage in self.stages)

    def _done(self, runner: Runner) -> int:
        """Return the epochs or iterations done, but for one that is still to be validated."""
        done = runner.epoch if self.by_epoch else runner.iter
        return done - _is_to_be_validated(runner)

    def _just_begun(self, runner: Runner) -> bool:
        """Whether no iteration of the stage is done yet."""
        if _is_to_be_validated(runner):
            return False
        if self.by_epoch and runner.iter > runner.epoch * len(runner.train_dataloader):
            return False
        return self._done(runner) == self.stages[self._stage - 1].begin

    def _follow(self, runner: Runner) -> None:
        """Bring the model to the stage that the run is in."""
        before, self._stage = self._stage, self._begun(runner)
        if before == self._stage:
            return
        changes = merge_changes(self.stages[before : self._stage])
        for index in range(before, self._stage):
            if index in self._teachers:
                changes["teacher"] = self._teachers.pop(index)
        compiled = any(teacher.settings.compile for teacher in _distiller(runner).teachers)
        averages = [average.module for average in averaged_networks(runner)]
        for model in (_distiller(runner), *averages):
            model.switch(**changes)
        del changes
        if compiled or runner.cfg.get("compile"):
            # torch would notice, but keep the code made for earlier teachers, which counts
            # towards the recompilations it allows before it gives up compiling.
            torch.compiler.reset()
        gc.collect()  # a network may be in a circle of references
        if self._just_begun(runner):  # log lines average the terms anew
            scalars = runner.message_hub.log_scalars
            for name in list(scalars):
                key = name.removeprefix("train/")
                if key != name and ("loss" in key or key in LOOKED_AT):
                    del scalars[name]
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        distiller = _distiller(runner)
        unit, end = ("epoch", runner.max_epochs) if self.by_epoch else ("iter", runner.max_iters)
        how = "" if self._just_begun(runner) else "resumed in "
        names = [teacher.name for teacher in distiller.teachers]
        ensemble = f" ({distiller.ensemble})" if len(names) > 1 else ""
        loss = " ".join(repr(distiller.loss_kd).split())
        runner.logger.info(
            f"Stage {self._stage} of {len(self.stages)} (begin="
            f"{self.stages[self._stage - 1].begin}, {how}{unit} {self._done(runner) + 1} of {end}):"
            f" teacher {' + '.join(names)}{ensemble}, loss_kd {loss}, alpha {distiller.alpha:g}"
        )

    def _check_end(self, runner: Runner) -> None:
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        if self.by_epoch and by_iter:
            raise ValueError(
                "SequentialTeacherHook counts epochs and the train loop has none; set "
                "by_epoch=False and give begin in iterations"
            )
        unit, end = "epochs", runner.max_epochs
        if not self.by_epoch:
            unit, end = "iterations", runner.max_iters
        if self.stages[-1].begin >= end:
            setting = "max_iters" if by_iter else "max_epochs"
            raise ValueError(
                f"stages[{len(self.stages) - 1}] begins after {self.stages[-1].begin} {unit}, and "
                f"training ends after {end}; lower its begin, drop it, or raise train_cfg.{setting}"
            )


def _distiller(runner: Runner) -> LogitDistiller:
    from mmkd_logit.models import LogitDistiller

    model = unwrapped(runner)
    if not isinstance(model, LogitDistiller):
        raise ValueError(
            f"SequentialTeacherHook needs a model of type mmkd_logit.LogitDistiller, got "
            f"{type(model).__name__}"
        )
    return model


def _is_to_be_validated(runner: Runner) -> bool:
    """Whether a resumed run first does a validation, which belongs to the stage before it."""
    progress = getattr(runner.train_loop, "progress", None)  # of a loop that can be resumed
    return progress is not None and not progress.validated and progress.iter == runner.iter

"""Another teacher, loss or alpha from some epoch on."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_flag

# What a stage can change; LogitDistiller.switch takes the same.
_CHANGES = ("teacher", "loss_kd", "alpha", "ensemble")
_KEYS = ("begin", *_CHANGES)


class Stage(NamedTuple):
    """From when on something is another.

    Attributes:
        begin: Number of epochs, or iterations, that come before it.
        changes: Arguments of :meth:`LogitDistiller.switch`.
    """

    begin: int
    changes: dict[str, Any]


def read_stages(stages: Any) -> list[Stage]:
    """Read the stages of a run.

    Nothing is kept of the teachers read here: their networks are built when training starts.
    """
    if not isinstance(stages, (list, tuple)) or not stages:
        raise ValueError(
            "stages must be a list of at least one dict(begin=..., teacher=..., loss_kd=..., "
            f"alpha=..., ensemble=...), got {stages!r}"
        )
    read = [_read_stage(stage, f"stages[{index}]") for index, stage in enumerate(stages)]
    begins = [stage.begin for stage in read]
    if any(later <= earlier for earlier, later in pairwise(begins)):
        raise ValueError(f"stages must be in the order of their begin, each later; got {begins}")
    return read


def _read_stage(stage: Any, where: str) -> Stage:
    if not isinstance(stage, dict):
        raise ValueError(f"{where} must be a dict with begin and what changes, got {stage!r}")
    for key in stage:
        if key not in _KEYS:
            close = get_close_matches(str(key), _KEYS, 1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(_KEYS)}"
            raise ValueError(f"{where} has no setting {key!r}; {hint}")
    begin = stage.get("begin")
    if isinstance(begin, bool) or not isinstance(begin, int) or begin < 0:
        raise ValueError(f"{where}.begin must be an integer from 0 on, got {begin!r}")
    changes = {key: stage[key] for key in _CHANGES if stage.get(key) is not None}
    if not changes:
        raise ValueError(f"{where} changes nothing; name one of {', '.join(_CHANGES)}")
    for key, value in changes.items():
        try:
            _check(key, value)
        except (ValueError, KeyError, TypeError) as error:
            reason = error.args[0] if error.args else error  # str of a KeyError has quotes
            raise ValueError(f"{where}.{key}: {reason}") from None
    return Stage(begin, changes)


def _check(key: str, value: Any) -> None:
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models import build, distiller

    checks: dict[str, Any] = dict(
        teacher=distiller.read_teachers,
        loss_kd=build.build_loss,
        alpha=distiller.check_alpha,
        ensemble=distiller.check_ensemble,
    )
    checks[key](value)


def merge_changes(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return what several stages have changed together: the last word on each."""
    return {key: value for stage in stages for key, value in stage.changes.items()}


# Another teacher or another loss from a given epoch on.


if TYPE_CHECKING:  # command lines read the hooks before they silence mmpretrain's warnings
    from mmkd_logit.models import FrozenTeacher, LogitDistiller

_LOOKED_AT = ("ce", "kd", "teacher_agreement")  # what a distiller logs beside its losses


@HOOKS.register_module()
class SequentialTeacherHook(Hook):
    """Change teacher, loss or weight of a :class:`LogitDistiller` while it trains.

    So a run begins with KL and ends with MSE, or begins with a large teacher and ends with a
    medium one (Kim et al., IJCAI 2021, do both in separate runs). The distiller's own settings
    hold from the start; what a stage does not name stays as it was. Student, optimizer, its
    momenta and the learning rate are left alone.

    The stage follows from the number of epochs (or iterations) done, so a resumed run, at a
    boundary or between two, goes on in the stage where it was, and all processes agree.

    Teachers of stages to come are built before the first iteration, on the CPU of each process,
    where a checkpoint that does not fit is an error; they move to the device when first used. At
    a switch the earlier teachers are let go, from ``EMAHook``'s copy of the model too. Log lines
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
        self.stages = read_stages(stages)
        self.by_epoch = check_flag("by_epoch", by_epoch)
        self._stage = 0  # how many stages have begun
        self._teachers: dict[int, list[FrozenTeacher]] = {}  # built, of stages to come

    def before_train(self, runner: Runner) -> None:
        """Check the run, build the teachers to come, and go to the stage that is resumed."""
        self._check(runner)
        self._stage = 0
        begun = self._begun(runner)
        # Of the stages that are over only the last word counts.
        last = max((i for i in range(begun) if "teacher" in self.stages[i].changes), default=begun)
        distiller = _distiller(runner)
        for index in range(last, len(self.stages)):
            teacher = self.stages[index].changes.get("teacher")
            if teacher is not None:
                self._teachers[index] = distiller.prepare(teacher)
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
        begun = self._begun(runner)
        if begun == self._stage:
            return
        changes = merge_changes(self.stages[self._stage : begun])
        for index in range(self._stage, begun):
            if index in self._teachers:
                changes["teacher"] = self._teachers.pop(index)
        self._stage = begun
        distiller = _distiller(runner)
        for model in (distiller, *_averages(runner)):
            model.switch(**changes)
        del changes
        self._forget(runner)
        self._report(runner, distiller, self.stages[begun - 1])

    def _forget(self, runner: Runner) -> None:
        """Let go of the earlier teachers, and of the values that log lines average."""
        if runner.cfg.get("compile"):
            # torch would notice, but keep the code made for earlier teachers, which counts
            # towards the recompilations it allows before it gives up compiling.
            torch.compiler.reset()
        gc.collect()  # a network may be in a circle of references
        if self._just_begun(runner):
            scalars = runner.message_hub.log_scalars
            for name in list(scalars):
                key = name.removeprefix("train/")
                if key != name and ("loss" in key or key in _LOOKED_AT):
                    del scalars[name]

    def _report(self, runner: Runner, distiller: LogitDistiller, stage: Stage) -> None:
        unit, end = ("epoch", runner.max_epochs) if self.by_epoch else ("iter", runner.max_iters)
        done = self._done(runner)
        how = "" if self._just_begun(runner) else "resumed in "
        names = [teacher.name for teacher in distiller.teachers]
        ensemble = f" ({distiller.ensemble})" if len(names) > 1 else ""
        loss = " ".join(repr(distiller.loss_kd).split())
        runner.logger.info(
            f"Stage {self._stage} of {len(self.stages)} "
            f"(begin={stage.begin}, {how}{unit} {done + 1} of {end}): "
            f"teacher {' + '.join(names)}{ensemble}, loss_kd {loss}, alpha {distiller.alpha:g}"
        )

    def _check(self, runner: Runner) -> None:
        _distiller(runner)
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        if self.by_epoch and by_iter:
            raise ValueError(
                "SequentialTeacherHook counts epochs and the train loop has none; set "
                "by_epoch=False and give begin in iterations"
            )
        end, setting = runner.max_iters, "max_iters" if by_iter else "max_epochs"
        if self.by_epoch:
            end = runner.max_epochs
        begin = self.stages[-1].begin
        if begin >= end:
            unit = "epochs" if self.by_epoch else "iterations"
            raise ValueError(
                f"stages[{len(self.stages) - 1}] begins after {begin} {unit}, and training ends "
                f"after {end}; lower its begin, drop it, or raise train_cfg.{setting}"
            )


def _distiller(runner: Runner) -> LogitDistiller:
    from mmkd_logit.models import LogitDistiller

    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, LogitDistiller):
        raise ValueError(
            f"SequentialTeacherHook needs a model of type mmkd_logit.LogitDistiller, got "
            f"{type(model).__name__}"
        )
    return model


def _is_to_be_validated(runner: Runner) -> bool:
    """Whether a resumed run first does a validation, which belongs to the stage before it."""
    place = getattr(runner.train_loop, "place", None)
    return place is not None and not place.validated and place.iter == runner.iter


def _averages(runner: Runner) -> list[LogitDistiller]:
    """Return the copies that hooks such as EMAHook keep of the model."""
    from mmkd_logit.models import LogitDistiller

    averages = [getattr(hook, "ema_model", None) for hook in runner.hooks]
    models = [getattr(average, "module", None) for average in averages]
    return [model for model in models if isinstance(model, LogitDistiller)]

"""What a user may write for the stages of a run, checked."""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NamedTuple

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

    Args:
        stages: As of :class:`mmkd_logit.hooks.SequentialTeacherHook`.

    Raises:
        ValueError: If they are no stages, in the wrong order or of the wrong values.
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
    from mmkd_logit.models import _distiller_parts as parts

    checks: dict[str, Any] = dict(
        teacher=parts.build_teachers,
        loss_kd=parts.build_loss,
        alpha=parts.check_alpha,
        ensemble=parts.check_ensemble,
    )
    checks[key](value)


def merge_changes(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return what several stages have changed together: the last word on each.

    Args:
        stages: In their order.
    """
    return {key: value for stage in stages for key, value in stage.changes.items()}

"""What MMEngine's hooks remember and do not save."""

from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, EarlyStoppingHook, SyncBuffersHook
from mmengine.runner import Runner

# By class, so that settings of a hook stay the config's.
_REMEMBERED: dict[type, tuple[str, ...]] = {
    EarlyStoppingHook: ("wait_count", "best_score"),
    SyncBuffersHook: ("called_in_train",),
}


def capture_hooks(runner: Runner) -> list[dict[str, Any]]:
    """Copy what hooks of known kinds remember, in the order of the hooks.

    Args:
        runner: In training.
    """
    return [
        dict(kind=kind.__name__, values=[_plain(getattr(hook, name)) for name in names])
        for hook in runner.hooks
        for kind, names in _REMEMBERED.items()
        if isinstance(hook, kind)
    ]


def restore_hooks(runner: Runner, states: list[dict[str, Any]]) -> None:
    """Give hooks back what they remembered.

    Args:
        runner: About to go on.
        states: Of :func:`capture_hooks`. Of a kind that the run has more or fewer of now,
            nothing is restored.
    """
    for kind, names in _REMEMBERED.items():
        hooks = [hook for hook in runner.hooks if isinstance(hook, kind)]
        known = [state["values"] for state in states if state["kind"] == kind.__name__]
        if len(hooks) == len(known):
            for hook, values in zip(hooks, known, strict=True):
                vars(hook).update(zip(names, values, strict=True))
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook) and hook.wait_count >= hook.patience:
            runner.train_loop.stop_training = True
        last = runner.message_hub.runtime_info.get("last_ckpt")
        if isinstance(hook, CheckpointHook) and hook.last_ckpt is None and last:
            # Without it a better validation would not have the checkpoint before it rewritten.
            hook.last_ckpt = str(Path(hook.out_dir, Path(last).name))


def count_steps(runner: Runner) -> None:
    """Let schedulers know that the optimizer has stepped, or they warn where an epoch ends now.

    Args:
        runner: About to go on.
    """
    schedulers = runner.param_schedulers or []
    lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    for scheduler in (each for some in lists for each in some):
        if runner.iter and getattr(scheduler.optimizer, "_global_step", 0) < 0:
            scheduler.optimizer._global_step = 0


def tell_early_stopping(runner: Runner, metrics: dict[str, float]) -> None:
    """Let the hooks that may stop a run hear of a validation that they missed.

    Args:
        runner: About to go on.
        metrics: Of the validation.
    """
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            hook.after_val_epoch(runner, metrics=metrics)


def _plain(value: Any) -> bool | int | float:
    return value if isinstance(value, (bool, int)) else float(value)

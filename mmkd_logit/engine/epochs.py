"""Shorter runs of the same recipe."""

from typing import Any

from mmengine.config import Config

_EPOCHS_OF_SCHEDULERS = ("milestones", "begin", "end", "T_max", "step_size", "total_iters")


def scale_epochs(cfg: Config, epochs: int) -> None:
    """Train for another number of epochs, with all the config's epochs in proportion.

    Scaled are the epochs of ``param_scheduler``, ``train_cfg.val_interval`` and the ``begin`` of
    stages of a hook, each to at least 1 (0 stays 0); a stage begins before the last epoch.

    Args:
        cfg: Changed in place.
        epochs: At least 1.

    Raises:
        ValueError: If the config does not count in epochs, or ``epochs`` is below 1.

    Example:
        >>> from mmengine.config import Config
        >>> cfg = Config(dict(train_cfg=dict(by_epoch=True, max_epochs=200),
        ...                   param_scheduler=dict(type='MultiStepLR', milestones=[100, 150])))
        >>> scale_epochs(cfg, 10)
        >>> cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones
        (10, [5, 8])
    """
    before = (cfg.get("train_cfg") or {}).get("max_epochs")
    if not before:
        raise ValueError("--epochs needs a config that trains by epochs (train_cfg.max_epochs)")
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {epochs}")

    def scaled(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scaled(item) for item in value]
        return max(1, round(value * epochs / before)) if value else value

    cfg.train_cfg.max_epochs = epochs
    if cfg.train_cfg.get("val_interval"):
        cfg.train_cfg.val_interval = scaled(cfg.train_cfg.val_interval)
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get("by_epoch", True):
            for key in _EPOCHS_OF_SCHEDULERS:
                if scheduler.get(key) is not None:
                    scheduler[key] = scaled(scheduler[key])
            if scheduler.get("end") is not None:
                scheduler["end"] = max(scheduler["end"], scheduler.get("begin", 0) + 1)
    for hook in cfg.get("custom_hooks") or []:
        for stage in hook.get("stages") or [] if hook.get("by_epoch", True) else []:
            if "begin" in stage:
                stage["begin"] = min(scaled(stage["begin"]), epochs - 1)  # or it never began

"""MMEngine's train loops replaced by ours."""

from mmengine.config import Config

from mmkd_logit._arguments import type_name

_OURS = dict(
    EpochBasedTrainLoop="mmkd_logit.ResumableEpochBasedTrainLoop",
    IterBasedTrainLoop="mmkd_logit.ResumableIterBasedTrainLoop",
)


def use_resumable_loop(cfg: Config) -> None:
    """Let a config that trains by one of MMEngine's loops do so by ours, which can be resumed.

    Called when the config's hash is taken: the loops do the same.

    Args:
        cfg: A complete config; changed in place.
    """
    settings = dict(cfg.train_cfg)
    kind = settings.pop("type", None)
    if kind is None and "by_epoch" in settings:
        kind = "EpochBasedTrainLoop" if settings.pop("by_epoch") else "IterBasedTrainLoop"
    ours = _OURS.get(type_name(kind) or "")
    if ours is not None:
        cfg.train_cfg = dict(type=ours, **settings)

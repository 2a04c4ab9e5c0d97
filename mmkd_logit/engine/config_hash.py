"""What of a config says what it computes."""

import hashlib
import json
from typing import Any

from mmengine.config import Config

# Fields of a config that say where a run writes, how it is started and what is measured at its
# end, not what it computes.
_WHERE_AND_HOW = (
    "work_dir",
    "launcher",
    "resume",
    "experiment_name",
    "default_hooks",
    "visualizer",
    "vis_backends",
    "log_level",
    "log_processor",
    "data_root",
    "pin_memory",
    "persistent_workers",
    "model_wrapper_cfg",
    "test_evaluator",  # unlike val_evaluator, by which a run may stop
    "train_evaluator",
)
_WATCHING_HOOKS = (
    "mmkd_logit.ProgressBarHook",
    "mmkd_logit.LabelNoiseHook",
    "mmkd_logit.FinalCheckpointHook",
    "mmkd_logit.LogitOutputsHook",
    "mmkd_logit.ClassifierSumHook",
    "mmkd_logit.TrainAccuracyHook",
    "mmkd_logit.FiguresHook",
    "mmkd_logit.ResumeStateHook",
    "mmkd_logit.OwnBestCheckpointHook",
    "mmkd_logit.SameBuffersHook",
    "mmkd_logit.RunCheckHook",
    "mmkd_logit.FiniteLossHook",
    "mmkd_logit.AtomicCheckpointHook",
    "mmkd_logit.PreemptionHook",
)
# Nor do these change what is trained; which of their values ends a run, EarlyStoppingHook says.
_WATCHING_METRICS = (
    "mmkd_logit.TeacherAgreement",
    "mmkd_logit.LogitStatistics",
    "mmkd_logit.LogitDistance",
    "mmkd_logit.NegativeLogLikelihood",
    "mmkd_logit.PerClassAccuracy",
    "mmkd_logit.NoisyLabelAccuracy",
)
CACHED_MICRO_BATCH = 32  # of a FrozenTeacher with a cache


def config_hash(cfg: Config) -> str:
    """Identify what a config computes: the same in other folders and on other machines.

    How a teacher computes is part of it. Its cache is not, as it gives the bits that it would
    compute, unless it rounds them to float16.

    Args:
        cfg: A complete config.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(computed_content(cfg).encode()).hexdigest()[:16]


def computed_content(cfg: Config) -> str:
    """Return what of a config says what it computes, of which :func:`config_hash` is the hash.

    Args:
        cfg: A complete config.

    Returns:
        JSON, of a dict.
    """
    content = without_exact_caches(_without(cfg.to_dict(), _WHERE_AND_HOW))
    hooks = content.get("custom_hooks") or []
    content["custom_hooks"] = [hook for hook in hooks if hook.get("type") not in _WATCHING_HOOKS]
    evaluator = content.get("val_evaluator")
    if isinstance(evaluator, list):
        kept = [each for each in evaluator if each.get("type") not in _WATCHING_METRICS]
        content["val_evaluator"] = kept[0] if len(kept) == 1 else kept  # the same to MMEngine
    return json.dumps(content, sort_keys=True, default=str)


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, (list, tuple)):
        return [_without(item, keys) for item in value]
    return value


def without_exact_caches(value: Any) -> Any:
    """Return settings without teachers' caches, but for what these do to the logits' bits.

    That is the type that one rounds to, and the batches in which misses are computed.

    Args:
        value: A config's content, or a teacher's.
    """
    if isinstance(value, (list, tuple)):
        return [without_exact_caches(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: without_exact_caches(item) for key, item in value.items()}
    if "config" in kept and "cache" in kept:
        cache = kept.pop("cache")
        dtype = cache.get("dtype", "float32") if isinstance(cache, dict) else "float32"
        if dtype != "float32":
            kept["cache"] = dict(dtype=dtype)
        if cache is not None and kept.get("micro_batch") is None:
            kept["micro_batch"] = CACHED_MICRO_BATCH
    return kept

"""What a complete config trains by, in a few words: loss, temperature, noise, teacher, network."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmkd_logit._arguments import type_name

from .teachers import later_teachers, teacher_specs

_KINDS = {"ScaledKLDivLoss": "kl", "LogitMSELoss": "mse"}
_SEQUENTIAL = "SequentialTeacherHook"
# What tells networks of one type apart; the rest follows from these or from the data.
_NETWORK = ("depth", "widen_factor", "base_channels", "strides", "arch", "model_name")


def describe_method(cfg: Config) -> dict[str, Any]:
    """Say by what a run is trained.

    Args:
        cfg: The complete config.

    Returns:
        ``kind``: ``'ce'`` (no teacher), ``'kl'`` or ``'mse'`` (that loss alone, from the first
        epoch to the last), or ``'other'``; ``loss``, the name of the type of the loss, or None;
        its ``tau`` (a number, ``'inf'`` or None); ``alpha``, or None for a plain student;
        ``label_noise``, ``kind`` and ``rate`` of wrong training labels, or None;
        ``teacher_config``, several joined by `` + ``, or None; ``network``, the student's type
        and size.
    """
    model = cfg.model
    distils = type_name(model) == "LogitDistiller"
    loss = (model.get("loss_kd") or {}) if distils else {}
    alpha = float(model.get("alpha", 1.0)) if distils else None
    features = list(model.get("feature_kd") or ()) if distils else []
    if features and not alpha:
        loss = features[0].get("loss") or {}
    return dict(
        kind=_kind(cfg, loss, alpha, bool(features)),
        tau=_number(loss.get("tau")) if isinstance(loss, Mapping) else None,
        alpha=alpha,
        loss=(loss.get("name") or type_name(loss)) if isinstance(loss, Mapping) else None,
        label_noise=_label_noise((cfg.get("train_dataloader") or {}).get("dataset")),
        teacher_config=_teachers(cfg) if distils else None,
        network=_network(model.get("student") if distils else model),
    )


def _kind(cfg: Config, loss: Any, alpha: float | None, features: bool) -> str:
    if features or any(type_name(hook) == _SEQUENTIAL for hook in cfg.get("custom_hooks") or []):
        return "other"
    if not alpha:
        return "ce"
    return _KINDS.get(type_name(loss) or "", "other")


def _number(value: Any) -> float | int | str | None:
    """Return a temperature as JSON has it."""
    if value is None:
        return None
    number = float(value)
    if math.isinf(number):
        return "inf"
    return int(number) if number.is_integer() else number


def _label_noise(dataset: Any) -> dict[str, Any] | None:
    while isinstance(dataset, Mapping):
        if type_name(dataset) == "NoisyLabelDataset":
            return dict(kind=dataset.get("kind"), rate=dataset.get("rate"))
        dataset = dataset.get("dataset")
    return None


def _teachers(cfg: Config) -> str | None:
    configs = []
    for spec in teacher_specs(cfg):
        config = spec.get("config") if isinstance(spec, Mapping) else spec
        configs.append(config if isinstance(config, str) else _network(config) or "a network")
    joined = " + ".join(configs)
    return joined if not later_teachers(cfg) else f"{joined} (in turn)"


def _network(model: Any) -> str | None:
    if not isinstance(model, Mapping):
        return None
    parts = model.get("backbone") or model
    sizes = [f"{key}={_plain(parts[key])}" for key in _NETWORK if parts.get(key) is not None]
    return " ".join([type_name(parts) or "network", *sizes])


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

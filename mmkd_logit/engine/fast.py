"""``--fast``: the same training in fewer digits."""

from typing import Any

from mmengine.config import Config, ConfigDict

from mmkd_logit._arguments import type_name

from .teachers import change_teachers, teacher_options, teacher_specs

EXACT = "float32"
_AUTOCAST, _CHANNELS_LAST = "AutocastOptimWrapper", "ChannelsLastHook"
# Fused, each of these is one operation on a GPU, and on a CPU SGD gives the same bits.
_FUSED = ("SGD", "Adam", "AdamW")


def make_fast(cfg: Config) -> None:
    """Let a config's student and teachers compute in bfloat16, channels last.

    Weights, gradients, the optimizer's state, losses and evaluation stay float32. What the config
    says of these settings already stays.

    Args:
        cfg: A complete config of a run; changed in place, and with it its hash.

    Raises:
        ValueError: If it has an optimizer wrapper other than ``OptimWrapper``.
    """
    wrapper: ConfigDict | dict[str, Any] = cfg.get("optim_wrapper") or {}
    kind = type_name(wrapper) or "OptimWrapper"
    if kind not in ("OptimWrapper", _AUTOCAST):
        raise ValueError(
            f"--fast sets optim_wrapper.type and the config has {kind}; leave one of them out"
        )
    wrapper["type"] = f"mmkd_logit.{_AUTOCAST}"
    wrapper.setdefault("dtype", "bfloat16")
    optimizer = wrapper.get("optimizer") or {}
    if type_name(optimizer) in _FUSED and not {"fused", "foreach", "capturable"} & set(optimizer):
        optimizer["fused"] = True
    hooks = list(cfg.get("custom_hooks") or [])
    if not _has_hook(cfg):
        cfg.custom_hooks = [*hooks, dict(type=f"mmkd_logit.{_CHANNELS_LAST}")]
    change_teachers(cfg, _fast_teacher)


def _fast_teacher(spec: Any) -> Any:
    if not isinstance(spec, (str, dict)):
        return spec
    if isinstance(spec, str) or "config" not in spec:
        spec = dict(config=spec)
    return dict(channels_last=True, autocast="bfloat16") | dict(spec)


def describe_numerics(cfg: Config) -> str:
    """Say in which digits a config trains.

    Args:
        cfg: A complete config.

    Returns:
        ``'float32'``, or such as ``'bfloat16, channels_last, fused'``; what teachers do follows
        where they do not compute like the student.
    """
    wrapper = cfg.get("optim_wrapper") or {}
    precision = _precision(wrapper)
    layout = ["channels_last"] * _has_hook(cfg)
    compiled = ["compiled"] * bool(cfg.get("compile"))
    fused = ["fused"] * bool((wrapper.get("optimizer") or {}).get("fused"))
    texts = [", ".join([precision, *layout, *compiled, *fused])]
    for spec in teacher_specs(cfg):
        options = teacher_options(spec)
        theirs = [options.get("autocast") or precision]
        theirs += ["channels_last"] * bool(options.get("channels_last"))
        theirs += ["compiled"] * bool(options.get("compile"))
        cache = options.get("cache")
        stored = cache.get("dtype", "float32") if isinstance(cache, dict) else "float32"
        rounded = [f"logits stored in {stored}"] * (stored != "float32")
        if theirs != [precision, *layout, *compiled] or rounded:
            texts.append(f"teacher {', '.join([*theirs, *rounded])}")
    return "; ".join(dict.fromkeys(texts))


def _has_hook(cfg: Config) -> bool:
    hooks = cfg.get("custom_hooks") or []
    return any(type_name(hook) == _CHANNELS_LAST for hook in hooks)


def _precision(wrapper: Any) -> str:
    kind = type_name(wrapper)
    if kind == _AUTOCAST:
        return str(wrapper.get("dtype", "bfloat16")).removeprefix("torch.")
    if kind == "AmpOptimWrapper":
        return str(wrapper.get("dtype") or "float16").removeprefix("torch.")
    return EXACT

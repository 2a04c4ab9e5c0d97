"""What ``clip_grad`` of an optimizer wrapper may hold."""

import math
from typing import Any

from mmkd_logit._arguments import refuse_unknown
from mmkd_logit._checks import check_choice, check_number

_CLIPS = {
    "norm": ("type", "max_norm", "norm_type", "error_if_nonfinite", "foreach"),
    "value": ("type", "clip_value", "foreach"),
}


def check_clip_grad(clip_grad: Any, name: str = "clip_grad") -> None:
    """Refuse what MMEngine would hand to torch only at the first update.

    Args:
        clip_grad: As of ``OptimWrapper``.
        name: What messages call it.

    Raises:
        ValueError: If it is something else.
    """
    if clip_grad is None:
        return
    if not isinstance(clip_grad, dict) or not clip_grad:
        raise ValueError(f"{name} must be None or dict(max_norm=...), got {clip_grad!r}")
    kind = check_choice(f"{name}.type", clip_grad.get("type", "norm"), tuple(_CLIPS))
    refuse_unknown(name, clip_grad, _CLIPS[kind])
    limit = _CLIPS[kind][1]
    if clip_grad.get(limit) != math.inf:  # which only measures the norm
        check_number(f"{name}.{limit}", clip_grad.get(limit), zero=False)

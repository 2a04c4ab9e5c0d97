"""What decides the bits of a teacher's logits, so that a cache is never taken for another's."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_logit._safe_arrays import state_hash

_FORMAT = 1  # of the files; another number where their layout or checksum changes


def weights_hash(model: nn.Module) -> str:
    """Hash a network's parameters and buffers, wherever and however they lie in memory.

    Args:
        model: The network.

    Returns:
        64 hexadecimal digits.
    """
    return state_hash({**dict(model.named_buffers()), **model.state_dict()})


def describe_preprocessor(preprocessor: Any) -> dict[str, Any]:
    """Say how a data preprocessor makes a network's input of the pictures.

    Args:
        preprocessor: The student's.
    """
    # A class of its own may do anything with the pictures.
    described: dict[str, Any] = dict(type=type(preprocessor).__name__)
    for name in ("mean", "std"):
        value = getattr(preprocessor, name, None)
        described[name] = value.flatten().tolist() if isinstance(value, Tensor) else value
    for name in ("_enable_normalize", "_channel_conversion", "to_rgb"):
        described[name] = getattr(preprocessor, name, None)
    for name in ("pad_size_divisor", "pad_value"):
        described[name] = getattr(preprocessor, name, None)
    return described


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Name what computes; other kinds of processor and versions of torch round otherwise.

    Args:
        device: Where the teacher runs.
    """
    if device.type == "cuda":
        return dict(
            torch=torch.__version__,
            device=torch.cuda.get_device_name(device),
            tf32=[torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
            benchmark=torch.backends.cudnn.benchmark,
        )
    return dict(
        torch=torch.__version__,
        device=f"{device.type} {torch.backends.cpu.get_cpu_capability()}",
        half=[
            bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
            bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
        ],
    )


def as_identity(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Hash a description.

    Args:
        content: Of plain values; others count as their text.

    Returns:
        32 hexadecimal digits, and the description as JSON holds it.
    """
    text = json.dumps(dict(content, format=_FORMAT), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32], json.loads(text)

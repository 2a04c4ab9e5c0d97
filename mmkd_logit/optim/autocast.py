"""bfloat16 autocast without a gradient scaler."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import Optimizer

from mmkd_logit.registry import OPTIM_WRAPPERS
from mmkd_logit.utils.arguments import check_choice, check_count, check_number, refuse_unknown

_CLIPS = {
    "norm": ("type", "max_norm", "norm_type", "error_if_nonfinite", "foreach"),
    "value": ("type", "clip_value", "foreach"),
}


def check_clip_grad(clip_grad: Any, name: str = "clip_grad") -> None:
    """Refuse what MMEngine would hand to torch only at the first update."""
    if clip_grad is None:
        return
    if not isinstance(clip_grad, dict) or not clip_grad:
        raise ValueError(f"{name} must be None or dict(max_norm=...), got {clip_grad!r}")
    kind = check_choice(f"{name}.type", clip_grad.get("type", "norm"), tuple(_CLIPS))
    refuse_unknown(name, clip_grad, _CLIPS[kind])
    limit = _CLIPS[kind][1]
    if clip_grad.get(limit) != math.inf:  # which only measures the norm
        check_number(f"{name}.{limit}", clip_grad.get(limit), zero=False)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Run the forward pass of training under ``torch.autocast``, on any device.

    MMEngine's ``AmpOptimWrapper`` refuses CPUs and asks the device at every step whether its
    scaled gradients are finite. bfloat16 has float32's range and needs no scaling, so nothing
    here waits for the device, and checkpoints are those of ``OptimWrapper``: either resumes the
    other's. Parameters, gradients and the optimizer's state stay float32; evaluation is not under
    autocast. Our losses raise logits to float32 or float64 by themselves.

    With ``clip_grad`` MMEngine logs the gradient's norm, which waits for the device at each
    update. Where a CPU has no instructions for bfloat16, a warning says that this is slow.

    Args:
        optimizer: Of parameters on one device, on which autocast works.
        dtype: ``'bfloat16'`` (or ``torch.bfloat16``).
        accumulative_counts: As of ``OptimWrapper``.
        clip_grad: As of ``OptimWrapper``.

    Raises:
        ValueError: For another dtype, or arguments that ``OptimWrapper`` does not take.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> wrapper = AutocastOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
        >>> with wrapper.optim_context(layer):
        ...     output = layer(torch.ones(1, 2))
        >>> output.dtype, layer.weight.dtype
        (torch.bfloat16, torch.float32)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        dtype: str | torch.dtype = "bfloat16",
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
        self.dtype = _check_dtype(dtype)
        check_count("accumulative_counts", accumulative_counts)
        check_clip_grad(clip_grad)
        super().__init__(optimizer, accumulative_counts=accumulative_counts, clip_grad=clip_grad)
        capability = torch.backends.cpu.get_cpu_capability()
        if self._device == "cpu" and capability in ("DEFAULT", "AVX2"):
            text = (
                f"This CPU ({capability}) has no instructions for bfloat16, in which this run "
                "trains: float32 (without --fast) can be ten times faster here."
            )
            print_log(text, "current", logging.WARNING)

    @property
    def _device(self) -> str:
        return self.optimizer.param_groups[0]["params"][0].device.type

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute in bfloat16 where that is safe, and hold back DDP's sums while accumulating.

        Args:
            model: The model that is trained.
        """
        with super().optim_context(model), torch.autocast(self._device, self.dtype):
            yield


def _check_dtype(dtype: object) -> torch.dtype:
    if dtype in ("bfloat16", torch.bfloat16):
        return torch.bfloat16
    hint = "leave dtype out"
    if dtype in ("float16", torch.float16):
        hint = (
            "float16's gradients vanish unless they are scaled; for it take "
            "optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16'), on a GPU (--amp)"
        )
    elif dtype in ("float32", torch.float32):
        hint = "for float32 take optim_wrapper=dict(type='OptimWrapper')"
    raise ValueError(f"AutocastOptimWrapper computes in 'bfloat16', got dtype={dtype!r}; {hint}")

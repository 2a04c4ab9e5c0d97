"""What weight decay alone makes of the sum of a layer's rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer


class DecayedSum:
    r"""The sum over classes of a layer's weight, and SGD's recursion for it without a loss.

    With :math:`\sum_k \partial L / \partial W_k = 0` the sum :math:`s` is moved by weight decay
    :math:`\lambda` alone, and stays on a line: :math:`s_t = c_t s_0` with, as in
    ``torch.optim.SGD``, :math:`g = \lambda c`, :math:`v \leftarrow \mu v + (1 - d) g` (at first
    :math:`v = g`) and :math:`c \leftarrow c - \eta\,v`, or :math:`c - \eta\,(g + \mu v)` with
    Nesterov's momentum. Only these numbers are advanced at a step, in float64.

    Args:
        layer: With a weight (K, D).
        optimizers: Of the run. Where none of them is ``torch.optim.SGD`` with this weight, there
            is no prediction.
    """

    def __init__(self, layer: nn.Linear, optimizers: list[Optimizer]) -> None:
        self.layer = layer
        self._begin: Tensor | None = None
        self._scale = 0.0
        self._decay = 1.0
        self._velocity: float | None = None
        self._group: dict[str, Any] | None = None
        self._optimizer: Optimizer | None = None
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                if type(optimizer) is SGD and any(p is layer.weight for p in group["params"]):
                    self._group, self._optimizer = group, optimizer

    def begin(self) -> None:
        """Predict from here on, where the optimizer has not made a step yet."""
        if self._optimizer is not None:
            self._watch(self._sum())

    def _watch(self, begin: Tensor) -> None:
        assert self._optimizer is not None
        self._begin, self._scale = begin, float(begin.norm())
        self._handle = self._optimizer.register_step_pre_hook(self._step)

    def end(self) -> None:
        """Let go of the optimizer."""
        if self._begin is not None:
            self._handle.remove()

    def _sum(self) -> Tensor:
        weight = self.layer.weight.detach()
        # Of float32's rounding nothing must be left: deviations of 1e-7 are looked at.
        wide = torch.float32 if weight.device.type == "mps" else torch.float64
        return weight.sum(0, dtype=wide)

    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return  # a fused optimizer is asked also where the loss' scale was too large
        group = self._group
        assert group is not None
        rate, momentum = float(group["lr"]), group["momentum"]
        gradient = float(group["weight_decay"]) * self._decay
        step = gradient
        if momentum:
            velocity = gradient
            if self._velocity is not None:
                velocity = momentum * self._velocity + (1 - group["dampening"]) * gradient
            self._velocity = velocity
            step = gradient + momentum * velocity if group["nesterov"] else velocity
        self._decay -= rate * step

    def values(self) -> dict[str, Tensor]:
        """Return what there is to log, on the weight's device."""
        now, bias = self._sum(), self.layer.bias
        found = dict(sum_norm=now.norm())
        if self._begin is not None:
            predicted = self._decay * self._begin
            found["sum_predicted"] = predicted.norm()
            if self._scale:
                found["sum_deviation"] = (now - predicted).norm() / self._scale
        if bias is not None:
            found["bias_sum"] = bias.detach().sum(dtype=now.dtype)
        return found

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a run that is resumed goes on from; None without a prediction."""
        if self._begin is None:
            return None
        return dict(begin=self._begin.cpu(), decay=self._decay, velocity=self._velocity)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Args:
            state: Of the same layer.
        """
        if self._optimizer is None or state["begin"].shape != self._sum().shape:
            return
        self._decay, self._velocity = state["decay"], state["velocity"]
        self._watch(state["begin"].to(self._sum()))

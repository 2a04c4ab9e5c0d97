"""The sum of the last layer over the classes, beside what weight decay alone makes of it."""

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from mmkd_logit.registry import HOOKS

from .networks import last_linear, optimizers, trained_networks


class DecayedSum:
    r"""The sum over classes of a layer's weight, and SGD's recursion for it without a loss.

    With :math:`\sum_k \partial L / \partial W_k = 0` the sum :math:`s` is moved by weight decay
    :math:`\lambda` alone, and stays on a line: :math:`s_t = c_t s_0` with, as in
    ``torch.optim.SGD``, :math:`g = \lambda c`, :math:`v \leftarrow \mu v + (1 - d) g` (at first
    :math:`v = g`) and :math:`c \leftarrow c - \eta\,v`, or :math:`c - \eta\,(g + \mu v)` with
    Nesterov's momentum. Only these numbers are advanced at a step, in float64.
    """

    def __init__(self, layer: nn.Linear, optimizers: Iterable[Optimizer]) -> None:
        self.layer = layer
        self._begin: Tensor | None = None
        self._decay = 1.0
        self._velocity: float | None = None
        self._optimizer: Optimizer | None = None
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                if type(optimizer) is SGD and any(p is layer.weight for p in group["params"]):
                    self._group, self._optimizer = group, optimizer

    def begin(self, state: dict[str, Any] | None = None) -> None:
        """Predict from here on, or go on from what :meth:`state_dict` gave."""
        state = dict(begin=self._sum(), decay=1.0, velocity=None) if state is None else state
        if self._optimizer is not None and state["begin"].shape == self._sum().shape:
            self._begin = state["begin"].to(self._sum())
            self._decay, self._velocity = state["decay"], state["velocity"]
            self._is_nonzero = bool(self._begin.any())
            self._handle = self._optimizer.register_step_pre_hook(self._step)

    def end(self) -> None:
        """Remove the hook of the optimizer."""
        if self._begin is not None:
            self._handle.remove()

    def _sum(self) -> Tensor:
        weight = self.layer.weight.detach()
        # Deviations of 1e-7 are logged, so float32's rounding is too coarse.
        wide = torch.float32 if weight.device.type == "mps" else torch.float64
        return weight.sum(0, dtype=wide)

    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return  # a fused optimizer is called also where the loss' scale was too large
        group = self._group
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
            if self._is_nonzero:
                found["sum_deviation"] = (now - predicted).norm() / self._begin.norm()
        if bias is not None:
            found["bias_sum"] = bias.detach().sum(dtype=now.dtype)
        return found

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a run that is resumed goes on from; None without a prediction."""
        if self._begin is None:
            return None
        return dict(begin=self._begin.cpu(), decay=self._decay, velocity=self._velocity)


_STATE = "classifier_sum"


@HOOKS.register_module()
class ClassifierSumHook(Hook):
    r"""Log the sum over classes of the last linear layer's weight, and what was predicted of it.

    A loss that does not change when a constant is added to all logits, as cross-entropy and KL at
    every temperature, has gradients whose sum over classes is 0. So :math:`s = \sum_k W_k` moves
    by weight decay alone, on a line towards 0. The MSE of logits pulls it towards what the
    teacher's logits sum to. Logged are

    - ``classifier/sum_norm``: :math:`\lVert s_t \rVert`,
    - ``classifier/sum_predicted``: the norm :math:`\lVert c_t s_0 \rVert` that weight decay alone
      gives, by the recursion of ``torch.optim.SGD`` with the learning rate of every step,
    - ``classifier/sum_deviation``: :math:`\lVert s_t - c_t s_0 \rVert / \lVert s_0 \rVert`,
    - ``classifier/bias_sum``: the sum of the biases, where there are any.

    They are the values after the iteration of their log line, not averages. With another
    optimizer, and in a run resumed from a checkpoint without this hook's state, there is no
    prediction; for weights that begin as zeros there is no relative deviation. Students of a
    :class:`StudentGroup` have ``NAME/`` before these keys. A model without such a layer has none.
    Training is not changed, and no iteration waits for the device.
    """

    changes_training = False
    priority = "HIGHEST"  # before RuntimeInfoHook notes what is logged

    def __init__(self) -> None:
        self._sums: dict[str, DecayedSum] = {}
        self._resumed: dict[str, Any] | None = None
        self._intervals: list[int] = []

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read the state of a run that is resumed."""
        if runner._resume:
            found = checkpoint.get(_STATE)
            self._resumed = found if isinstance(found, dict) else {}

    def before_train(self, runner: Runner) -> None:
        """Find the layers, and their sums at the beginning."""
        self._intervals = [h.interval for h in runner.hooks if isinstance(h, LoggerHook)]
        self._sums = {}
        for prefix, network in trained_networks(runner).items():
            layer = last_linear(network)
            if layer is None:
                continue
            found = self._sums[prefix] = DecayedSum(layer, optimizers(runner))
            if self._resumed is None:
                found.begin()
            elif self._resumed.get(prefix) is not None:
                found.begin(self._resumed[prefix])
            _forget(runner, f"train/{prefix}classifier/", set(found.values()))
        self._resumed = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the values to what is logged, where a log line follows or an epoch ends."""
        logged = any(self.every_n_inner_iters(batch_idx, n) for n in self._intervals)
        if outputs is None or not (logged or self.end_of_epoch(runner.train_dataloader, batch_idx)):
            return
        for prefix, found in self._sums.items():
            for name, value in found.values().items():
                outputs[f"{prefix}classifier/{name}"] = value

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what is needed to resume."""
        if "optimizer" not in checkpoint:
            return
        states: dict[str, Any] = {}
        for prefix, network in trained_networks(runner).items():
            layer = last_linear(network)
            for found in self._sums.values():
                if found.layer is layer:  # one of a group has no prefix in a file of its own
                    states[prefix] = found.state_dict()
        if states:
            checkpoint[_STATE] = states

    def after_train(self, runner: Runner) -> None:
        """Remove the hooks of the optimizers."""
        for found in self._sums.values():
            found.end()


def _forget(runner: Runner, begin: str, names: set[str]) -> None:
    """Delete logged values that are not computed any more, so that no log line repeats them."""
    scalars = runner.message_hub.log_scalars
    for key in list(scalars):
        if key.startswith(begin) and key.removeprefix(begin) not in names:
            del scalars[key]

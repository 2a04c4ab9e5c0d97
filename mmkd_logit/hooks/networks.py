"""The networks that a run trains, and what their last layers compute."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer


def unwrapped(runner: Runner) -> Any:
    """Return the model of a run, without DistributedDataParallel around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def trained_networks(runner: Runner) -> dict[str, nn.Module]:
    """Return each network by the prefix of its logged values."""
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models import StudentGroup

    model = unwrapped(runner)
    if isinstance(model, StudentGroup):
        return {f"{name}/": student for name, student in model.students.items()}
    return {"": model}


def averaged_networks(runner: Runner) -> list[nn.Module]:
    """Return the copies of the model that hooks such as EMAHook keep."""
    found = (getattr(hook, "ema_model", None) for hook in runner.hooks)
    return [network for network in found if isinstance(network, nn.Module)]


def logits_of(network: nn.Module) -> nn.Module | None:
    """Return the child of a classifier whose output is the logits, or None."""
    from mmkd_logit.models.build import known_logits

    names = getattr(network, "logit_names", None) or known_logits(network)
    return network.get_submodule(names[0]) if names else None


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the linear layer that ends a classifier, or None."""
    head = logits_of(network)
    layers = [] if head is None else [m for m in head.modules() if isinstance(m, nn.Linear)]
    return layers[-1] if layers else None


def optimizers(runner: Runner) -> Iterator[Optimizer]:
    """Give the optimizers of a run."""
    wrapper = runner.optim_wrapper
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        yield each.optimizer


def schedulers(runner: Runner) -> list[Any]:
    """Return the parameter schedulers of a run."""
    found = runner.param_schedulers or []
    lists = found.values() if isinstance(found, dict) else [found]
    return [scheduler for each in lists for scheduler in each]


class LogitObserver:
    """Keeps the logits of a classifier and the inputs of its last linear layer.

    It sees the passes of training or those of evaluation, as the mode of the head says. What it
    has seen is taken once; of a network without such layers it sees nothing.
    """

    def __init__(self, network: nn.Module, training: bool) -> None:
        self._training = training
        self._seen: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []
        head, last = logits_of(network), last_linear(network)
        if head is not None:
            self._handles.append(head.register_forward_hook(self._note_logits))
        if last is not None:
            self._handles.append(last.register_forward_pre_hook(self._note_inputs))

    def _note_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        if len(args) > 1 and hasattr(module, "_get_loss"):  # a head puts a margin on labels' logits
            with torch.no_grad():
                output = module.forward(args[0])
        self._note("logits", module, getattr(output, "logits", output))  # Hugging Face wraps them

    def _note_inputs(self, module: nn.Module, args: Any) -> None:
        self._note("prelogits", module, args[0])

    def _note(self, name: str, module: nn.Module, values: Any) -> None:
        if module.training == self._training and isinstance(values, Tensor) and values.ndim == 2:
            self._seen.setdefault(name, []).append(values.detach())

    def take(self) -> dict[str, Tensor]:
        """Return ``logits`` (N, K) and ``prelogits`` (N, D) of the passes since the last call."""
        seen, self._seen = self._seen, {}
        return {name: v[0] if len(v) == 1 else torch.cat(v) for name, v in seen.items()}

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

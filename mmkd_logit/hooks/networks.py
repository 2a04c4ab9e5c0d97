"""The networks that a run trains, and the layers of them that hooks look at."""

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer


def trained_networks(runner: Runner) -> dict[str, nn.Module]:
    """Return each network by what the names of its logged values begin with."""
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models import StudentGroup

    model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if isinstance(model, StudentGroup):
        return {f"{name}/": student for name, student in model.students.items()}
    return {"": model}


def logits_of(network: nn.Module) -> nn.Module | None:
    """Return the child of a classifier whose output is the logits, or None."""
    from mmkd_logit.models.build import logit_module

    try:
        return logit_module(network)
    except ValueError:
        return None


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the linear layer that ends a classifier, or None."""
    head = logits_of(network)
    layers = (
        [] if head is None else [each for each in head.modules() if isinstance(each, nn.Linear)]
    )
    return layers[-1] if layers else None


def optimizers(runner: Runner) -> Iterator[Optimizer]:
    """Give the optimizers of a run."""
    wrapper = runner.optim_wrapper
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        yield each.optimizer

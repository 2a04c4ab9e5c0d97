"""Weights that are no numbers."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_STATISTICS = ("running_mean", "running_var")


def broken_weights(network: nn.Module) -> list[str]:
    """Name the tensors of a network that make everything it computes meaningless.

    Parameters and BatchNorm's statistics must be finite; other buffers, such as masks, may hold
    infinity and no NaN.

    Args:
        network: Any module; looking waits for its device.
    """
    broken = [
        name
        for name, value in network.named_parameters()
        if not is_lazy(value) and not torch.isfinite(value).all()
    ]
    for name, value in network.named_buffers():
        if is_lazy(value) or not value.is_floating_point():
            continue
        statistic = name.rpartition(".")[-1] in _STATISTICS
        if not torch.isfinite(value).all() if statistic else torch.isnan(value).any():
            broken.append(name)
    return broken


def describe_broken(broken: list[str]) -> str:
    """Name some of many.

    Args:
        broken: At least one name.
    """
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"{broken[0]}{more}"

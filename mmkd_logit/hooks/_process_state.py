"""What one process of a run has and the others have not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ._random_states import capture_random_states, restore_random_states, seed_random_states


def gather_processes(runner: Runner) -> list[dict[str, Any]]:
    """Collect the states of all processes, of which each calls this at the same time.

    Args:
        runner: In training.

    Returns:
        One state for each process, of tensors and plain containers. A buffer that equals the
        first process's, whose model the checkpoint holds, is left out.
    """
    states = all_gather_object(capture_process(runner))
    first = states[0]["buffers"]
    for state in states[1:]:
        own = state["buffers"]
        state["buffers"] = {n: v for n, v in own.items() if not torch.equal(v, first[n])}
    states[0]["buffers"] = {}
    return states


def capture_process(runner: Runner) -> dict[str, Any]:
    """Copy the random states of this process, its buffers and gradients that still grow.

    BatchNorm's statistics are each process's own until an epoch ends. Gradients are there while
    the optimizer accumulates them, before DDP has averaged them.

    Args:
        runner: In training.
    """
    gradients = {name: p.grad for name, p in _model(runner).named_parameters()}
    alone = get_world_size() == 1
    return dict(
        random=capture_random_states(),
        buffers={} if alone else {n: _copy(b) for n, b in _buffers(runner)},
        gradients={name: _copy(grad) for name, grad in gradients.items() if grad is not None},
    )


def restore_process(runner: Runner, states: Sequence[dict], rank: int) -> None:
    """Give a process its state, when the model and the optimizer are loaded.

    Args:
        runner: About to go on.
        states: Of the processes that there were.
        rank: Of this process.
    """
    same_number = len(states) == get_world_size()
    buffers = dict(_buffers(runner))
    if same_number:
        for name, value in states[rank]["buffers"].items():
            buffers[name].data.copy_(value)
    else:
        _average_buffers(buffers, states)
    gradients = states[rank]["gradients"] if same_number else _average_gradients(states)
    parameters = dict(_model(runner).named_parameters())
    for name, value in gradients.items():
        parameters[name].grad = torch.empty_like(parameters[name]).copy_(value)
    if rank < len(states):
        restore_random_states(states[rank]["random"])
    else:
        seed_random_states(runner.seed, runner.iter, rank)


def _average_buffers(buffers: Mapping[str, Tensor], states: Sequence[dict]) -> None:
    """Give all the mean, as MMEngine does at the end of an epoch."""
    for name in {name for state in states for name in state["buffers"]}:
        buffer = buffers[name]
        if buffer.is_floating_point():
            values = [state["buffers"].get(name, buffer).to(buffer) for state in states]
            buffer.data.copy_(torch.stack(values).mean(0))


def _average_gradients(states: Sequence[dict]) -> dict[str, Tensor]:
    """Give the mean, which DDP makes of the sums of several processes."""
    names = states[0]["gradients"]
    return {name: torch.stack([s["gradients"][name] for s in states]).mean(0) for name in names}


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _buffers(runner: Runner) -> Iterator[tuple[str, Tensor]]:
    """Give the buffers of the model, and of the copies that hooks such as EMAHook keep of it."""
    yield from ((f"model.{name}", buffer) for name, buffer in _model(runner).named_buffers())
    averages = [getattr(hook, "ema_model", None) for hook in runner.hooks]
    for number, average in enumerate(each for each in averages if isinstance(each, nn.Module)):
        for name, buffer in average.named_buffers():
            yield f"average{number}.{name}", buffer


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)

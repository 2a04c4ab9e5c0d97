"""What several processes decide together without waiting for each other."""

from collections import deque
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import get_comm_device, get_world_size
from torch import Tensor

_LAG = 10  # iterations after which a GPU has surely come as far


class Agreement:
    """The largest number that any process gives, known to all at the same call.

    The answer is that of an earlier call, of the one before on CPUs: by then it has arrived, and
    neither a process nor its GPU stands still for it.
    """

    def __init__(self) -> None:
        self._alone = get_world_size() == 1
        self._waiting: deque[tuple[Any, Tensor, Any]] = deque()

    def __call__(self, number: int) -> int:
        """Give a number and learn what was agreed on; all processes call this equally often.

        Args:
            number: From 0 on.
        """
        if self._alone:
            return number
        self._waiting.append(_ask(number))
        on_gpu = self._waiting[0][2] is not None
        return self._answer() if len(self._waiting) > (_LAG if on_gpu else 1) else 0

    def finish(self, number: int) -> int:
        """Give a last number and wait for all answers.

        Args:
            number: From 0 on.
        """
        if self._alone:
            return number
        self._waiting.append(_ask(number))
        return max(self._answer() for _ in range(len(self._waiting)))

    def _answer(self) -> int:
        work, value, arrived = self._waiting.popleft()
        if arrived is None:
            work.wait()
        else:
            arrived.synchronize()
        return int(value)


def _ask(number: int) -> tuple[Any, Tensor, Any]:
    value = torch.tensor([number], device=get_comm_device())
    work = dist.all_reduce(value, op=dist.ReduceOp.MAX, async_op=True)
    if not value.is_cuda:
        return work, value, None
    work.wait()  # the stream does, the process does not
    host = torch.empty(1, dtype=value.dtype, pin_memory=True)
    host.copy_(value, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return work, host, arrived

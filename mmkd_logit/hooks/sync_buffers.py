"""The same buffers in all processes before evaluation."""

from typing import Any

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit.registry import HOOKS


# The second name is that of version 0.1.0, which dumped configs hold.
@HOOKS.register_module(name=["SyncBuffersBeforeEvalHook", "SameBuffersHook"])
class SyncBuffersBeforeEvalHook(Hook):
    """Give all processes the buffers of the first before they evaluate.

    Each process of a distributed run keeps BatchNorm's statistics of its own batches, so that in
    an evaluation each would test its part of the data with another network, and none but the
    first with the one that is saved. With this hook metrics are those of the checkpoint.
    Training goes on as without it: there BatchNorm uses the batch. ``tools/train.py`` adds it.

    It comes after ``EMAHook`` has put the averaged network in its place.

    Example:
        >>> from mmkd_logit.hooks import SyncBuffersBeforeEvalHook
        >>> hook = SyncBuffersBeforeEvalHook()
    """

    changes_training = False
    priority = "VERY_LOW"

    def before_val_epoch(self, runner: Runner) -> None:
        """Send the buffers."""
        _share_buffers(runner.model)

    def before_test_epoch(self, runner: Runner) -> None:
        """Send the buffers."""
        _share_buffers(runner.model)


def _share_buffers(model: Any) -> None:
    if get_world_size() > 1:
        for buffer in model.buffers():
            broadcast(buffer.data, 0)

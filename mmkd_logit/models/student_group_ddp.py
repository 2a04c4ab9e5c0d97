"""A group of students over several processes."""

from typing import Any

from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from mmkd_logit.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class StudentGroupDDP(MMDistributedDataParallel):
    """One ``DistributedDataParallel`` around all students of a :class:`StudentGroup`.

    MMEngine's own makes one step of one optimizer. Arguments are its.
    """

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Make a step of every student.

        Args:
            data: A batch of the data loader.
            optim_wrapper: One optimizer for each student, by its name.
        """
        group = self.module
        with group.step_context(optim_wrapper):
            data = group.data_preprocessor(data, training=True)
            losses = self._run_forward(data, mode="loss")
        return group.update(losses, optim_wrapper)

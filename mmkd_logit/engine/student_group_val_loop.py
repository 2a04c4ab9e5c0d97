"""Validating each student of a group."""

import copy
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, ValLoop

from mmkd_logit.registry import LOOPS


@LOOPS.register_module()
class StudentGroupValLoop(ValLoop):
    """Show every batch to every student; metrics are named ``NAME/METRIC``.

    Args:
        runner: Of the group.
        dataloader: As of MMEngine's loop.
        evaluator: As of MMEngine's loop; each student has a copy.
        fp16: As of MMEngine's loop.
    """

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.students = model.students
        self.evaluators = {name: copy.deepcopy(self.evaluator) for name in self.students}

    def run(self) -> dict[str, Any]:
        """Validate.

        Returns:
            The metrics of all.
        """
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        self.runner.model.eval()
        for number, batch in enumerate(self.dataloader):
            self.run_iter(number, batch)
        size = len(self.dataloader.dataset)
        metrics = {
            f"{name}/{key}": value
            for name, evaluator in self.evaluators.items()
            for key, value in evaluator.evaluate(size).items()
        }
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Show one batch to every student.

        Args:
            idx: Its number.
            data_batch: Of the data loader.
        """
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        outputs: Any = None
        for name, student in self.students.items():
            with torch.autocast(next(student.parameters()).device.type, enabled=self.fp16):
                outputs = student.val_step(data_batch)
            self.evaluators[name].process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            "after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )

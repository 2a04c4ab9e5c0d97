"""Accuracy of the training batches."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import HOOKS

from .networks import logits_of, trained_networks

_STATE = "train_accuracy"


@HOOKS.register_module()
class TrainAccuracyHook(Hook):
    """Log ``batch_top1``, the training accuracy in percent, with no forward pass of its own.

    It looks at the logits that pass the head in the training step, so at augmented images, in
    training mode, each by the weights of its iteration. A log line has the mean over the samples of
    the epoch so far. Over several processes it is the main one's, as the losses are.

    Where labels are mixed (MixUp, CutMix), several or none, nothing is logged. Students of a
    :class:`StudentGroup` have ``NAME/`` before the key. Nothing is trained otherwise, and no
    iteration waits for the device.
    """

    changes_training = False
    priority = "HIGHEST"  # before RuntimeInfoHook notes what is logged

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._in_step = False
        self._logits: dict[str, Tensor] = {}
        self._labels: Tensor | None = None
        self._right: dict[str, Tensor | int] = {}
        self._total = 0

    def before_train(self, runner: Runner) -> None:
        """Look at what passes heads and preprocessor from now on."""
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        heads = {key: logits_of(each) for key, each in trained_networks(runner).items()}
        preprocessor = getattr(model, "data_preprocessor", None)
        if preprocessor is None:
            return
        self._handles = [
            head.register_forward_hook(self._noting(prefix))
            for prefix, head in heads.items()
            if head is not None
        ]
        self._handles.append(preprocessor.register_forward_hook(self._note_labels))

    def _noting(self, prefix: str) -> Callable:
        def note(module: Any, args: Any, output: Any) -> None:
            logits = getattr(output, "logits", output)  # Hugging Face wraps them
            if self._in_step and isinstance(logits, Tensor) and logits.ndim == 2:
                self._logits[prefix] = logits.detach()

        return note

    def _note_labels(self, module: Any, args: Any, output: Any) -> None:
        if self._in_step and isinstance(output, dict):
            self._labels = _hard_labels(output.get("data_samples"))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Look from here on; validation passes the same modules."""
        self._in_step = True
        self._logits, self._labels = {}, None
        if batch_idx % len(runner.train_dataloader) == 0:  # also of a loop that counts iterations
            self._right, self._total = {}, 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the accuracy to what is logged."""
        self._in_step = False
        logits, labels = self._logits, self._labels
        self._logits, self._labels = {}, None
        if outputs is None or labels is None:
            return
        self._total += len(labels)
        for prefix, values in logits.items():
            if len(values) != len(labels):
                continue
            right = (values.argmax(1) == labels.to(values.device)).sum()
            self._right[prefix] = right + self._right.get(prefix, 0)
            outputs[f"{prefix}batch_top1"] = 100 * self._right[prefix] / self._total

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the counts of the epoch so far."""
        if "optimizer" in checkpoint:
            right = {prefix: int(count) for prefix, count in self._right.items()}
            checkpoint[_STATE] = dict(right=right, total=self._total)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on counting, if the run goes on within an epoch."""
        state = checkpoint.get(_STATE)
        if runner._resume and isinstance(state, dict) and {"right", "total"} <= set(state):
            self._right, self._total = dict(state["right"]), state["total"]

    def after_train(self, runner: Runner) -> None:
        """Look no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _hard_labels(data_samples: Any) -> Tensor | None:
    """Return the classes (N,) of a batch, or None if they are mixed, several or missing."""
    if isinstance(data_samples, SampleBatch):
        return data_samples.labels
    labels = []
    for sample in data_samples if isinstance(data_samples, (list, tuple)) else ():
        label = sample.get("gt_label")
        if label is None or label.numel() != 1 or sample.get("gt_score") is not None:
            return None
        labels.append(label)
    return torch.cat(labels) if labels else None

"""Accuracy of the training batches."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import HOOKS

from .networks import LogitObserver, trained_networks, unwrapped

_STATE = "train_accuracy"


@HOOKS.register_module()
class TrainAccuracyHook(Hook):
    """Log ``batch_top1``, the training accuracy in percent, with no forward pass of its own.

    It is computed of the logits of the training step: of augmented images, in training mode, each
    by the weights of its iteration. A log line has the mean over the samples of the epoch so far.
    Over several processes it is that of the main one, as the losses are.

    Where samples have mixed labels (MixUp, CutMix), several or none, nothing is logged. Students
    of a :class:`StudentGroup` have ``NAME/`` before the key. Training is not changed, and no
    iteration waits for the device.
    """

    changes_training = False
    priority = "HIGHEST"  # before RuntimeInfoHook notes what is logged

    def __init__(self) -> None:
        self._observers: dict[str, LogitObserver] = {}
        self._labels: Tensor | None = None
        self._right: dict[str, Tensor | int] = {}
        self._total = 0

    def before_train(self, runner: Runner) -> None:
        """Observe heads and preprocessor from now on."""
        preprocessor = getattr(unwrapped(runner), "data_preprocessor", None)
        if preprocessor is None:
            return
        for prefix, network in trained_networks(runner).items():
            self._observers[prefix] = LogitObserver(network, training=True)
        self._handle = preprocessor.register_forward_hook(self._note_labels)

    def _note_labels(self, module: Any, args: Any, output: Any) -> None:
        samples = output.get("data_samples") if isinstance(output, dict) else None
        self._labels = _hard_labels(samples)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin to count with each epoch, also in a loop that counts iterations."""
        for each in self._observers.values():
            each.take()  # passes of other hooks, such as PreciseBNHook's
        if batch_idx % len(runner.train_dataloader) == 0:
            self._right, self._total = {}, 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the accuracy to what is logged."""
        labels, self._labels = self._labels, None
        seen = {prefix: each.take().get("logits") for prefix, each in self._observers.items()}
        if outputs is None or labels is None:
            return
        self._total += len(labels)
        for prefix, logits in seen.items():
            if logits is not None and len(logits) == len(labels):
                right = (logits.argmax(1) == labels.to(logits.device)).sum()
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
        """Remove the observers."""
        for each in self._observers.values():
            each.remove()
        if self._observers:
            self._handle.remove()
        self._observers = {}


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

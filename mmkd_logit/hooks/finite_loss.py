"""Stopping at a loss that is not finite."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_count

from .networks import LogitObserver, trained_networks, unwrapped

_SHOWN = 16  # sample numbers in a message


class Record(NamedTuple):
    """What explains one iteration; tensors stay on their device."""

    epoch: int
    iteration: int
    samples: Any  # the batch's annotations
    sums: dict[str, Tensor]  # by network: a number a sample (N,), finite where its logits are
    terms: tuple[str, ...]
    losses: Tensor  # by term


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop where a loss is NaN or infinite, with the iteration, the samples and the cause.

    The error names the iteration, the loss terms, whose logits (student's or teacher's) are not
    finite, the first such sample and the first samples of the batch; the log has all of them. No
    checkpoint is written whose weights are not finite, or were trained by such a loss.

    No iteration waits for the device. The losses are those that are logged, and one number a
    sample of the logits stays on the device, until a line is logged, an epoch or ``limit``
    iterations end, validation begins or a checkpoint is to be written; then all iterations since
    are checked, so that training stops some of them late. Gradients are not checked: a scaler of
    AMP meets infinite ones by design. Several processes check and stop together.

    Args:
        limit: Number of iterations after which they are checked at the latest.

    Raises:
        ValueError: If ``limit`` is no positive integer; while training, if a loss is not finite.
    """

    changes_training = False

    # After RuntimeInfoHook has noted the losses; before they are logged and checkpoints written.
    priority = "NORMAL"

    def __init__(self, limit: int = 1000) -> None:
        self.limit = check_count("limit", limit)
        self._intervals: list[int] = []
        self._networks: dict[str, tuple[nn.Module, LogitObserver]] = {}
        self._records: list[Record] = []
        self._done = 0

    def before_train(self, runner: Runner) -> None:
        """Observe the logits from now on."""
        self._intervals = [h.interval for h in runner.hooks if isinstance(h, LoggerHook)]
        self._records = []
        self._networks = {
            prefix: (network, LogitObserver(network, training=True))
            for prefix, network in trained_networks(runner).items()
        }

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget the passes of other hooks, such as PreciseBNHook's."""
        for _, observer in self._networks.values():
            observer.take()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Keep what explains the iteration, and check all since, if it is time."""
        sums = {}
        for prefix, (network, observer) in self._networks.items():
            published = getattr(network, "record", None)
            logits = dict(
                student=observer.take().get("logits"),
                teacher=getattr(published, "teacher_logits", None),
            )
            for name, values in logits.items():
                if values is not None:
                    sums[f"{prefix}{name}"] = values.sum(-1, dtype=torch.float32)
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
        losses = {name: value for name, value in (outputs or {}).items() if _is_loss(name, value)}
        if losses:
            # A copy: compiled with CUDA graphs, the next step overwrites what this one returned.
            values = torch.stack([value.detach().reshape(()) for value in losses.values()])
            record = Record(runner.epoch, runner.iter, samples, sums, tuple(losses), values)
            self._records.append(record)
        self._done = runner.iter + 1
        logged = any(self.every_n_inner_iters(batch_idx, n) for n in self._intervals)
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if logged or last or len(self._records) >= self.limit:
            self._check(runner)

    def before_val(self, runner: Runner) -> None:
        """Check before a network is measured."""
        if self._records:
            self._check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let no checkpoint of a diverged training be written; one process alone writes them."""
        self._stop(runner, self._find(runner))
        # Not above: command lines read the hooks before they silence mmpretrain's warnings.
        from mmkd_logit.models.teacher import broken_weights

        for key in ("state_dict", "ema_state_dict"):
            broken = broken_weights(unwrapped(runner), checkpoint.get(key) or {})
            text = (
                f"after iteration {self._done}: the weights {broken} are NaN or infinite, though "
            )
            text += "every loss was finite; the last gradient was not"
            self._stop(runner, text if broken else None)

    def after_train(self, runner: Runner) -> None:
        """Remove the observers."""
        for _, observer in self._networks.values():
            observer.remove()
        self._networks, self._records = {}, []

    def _check(self, runner: Runner) -> None:
        """Stop, on all processes, if a loss was not finite on one."""
        texts = all_gather_object(self._find(runner))
        self._records.clear()
        for rank, text in enumerate(texts):
            other = text and rank != get_rank()
            self._stop(runner, f"{text} (process {rank})" if other else text)

    def _stop(self, runner: Runner, text: str | None) -> None:
        if text is not None:
            pointer = Path(runner.work_dir, "last_checkpoint")
            last = Path(pointer.read_text().strip()).name if pointer.is_file() else None
            advice = f"go on from {last} with --resume" if last else "begin anew"
            raise ValueError(
                f"training stopped {text}. Lower the learning rate or look at these samples, then "
                f"{advice}"
            )

    def _find(self, runner: Runner) -> str | None:
        """Describe the first iteration since the last check whose loss is not finite."""
        if not self._records:
            return None
        losses = iter(torch.cat([record.losses for record in self._records]).tolist())
        for record in self._records:
            values = {name: next(losses) for name in record.terms}
            for prefix in self._networks:
                if not math.isfinite(values.get(f"{prefix}loss", 0.0)):
                    return self._describe(runner, record, values, prefix)
        return None

    def _describe(
        self, runner: Runner, record: Record, losses: dict[str, float], prefix: str
    ) -> str:
        own = {n.removeprefix(prefix): v for n, v in losses.items() if n.startswith(prefix)}
        terms = ", ".join(f"{name}={value:.6g}" for name, value in own.items() if "/" not in name)
        numbers = _sample_numbers(record.samples)
        who = f" of the student {prefix.rstrip('/')}" if prefix else ""
        more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
        batch = f"; the batch has samples {', '.join(numbers[:_SHOWN])}{more}" if numbers else ""
        iteration = record.iteration + 1
        runner.logger.error(f"Iteration {iteration}{who}: {terms}; samples {', '.join(numbers)}")
        return (
            f"at iteration {iteration} (epoch {record.epoch + 1}): the loss{who} is not finite: "
            f"{terms}; {_describe_logits(record, prefix)}{batch}"
        )


def _is_loss(name: str, value: Any) -> bool:
    own = name.rpartition("/")[2]
    is_term = "loss" in own or own in ("ce", "kd")
    return is_term and isinstance(value, Tensor) and value.numel() == 1


def _sample_numbers(samples: Any) -> list[str]:
    """Return the numbers of a batch's samples in their data set."""
    if isinstance(samples, SampleBatch):
        return [str(number) for number in samples.index.tolist()]
    if not isinstance(samples, (list, tuple)):
        return []
    numbers = (sample.get("sample_idx") for sample in samples if hasattr(sample, "get"))
    return ["?" if number is None else str(number) for number in numbers]


def _describe_logits(record: Record, prefix: str) -> str:
    """Say whose logits are not finite, and of which sample first."""
    numbers = _sample_numbers(record.samples)
    broken, finite = [], []
    for name in (name for name in record.sums if name.startswith(prefix)):
        sums, whose = record.sums[name], f"the {name.removeprefix(prefix)}'s logits are"
        places = np.flatnonzero(~np.isfinite(sums.cpu().numpy()))
        if len(places):
            first = int(places[0])
            number = numbers[first] if first < len(numbers) else f"number {first} of the batch"
            many = f"{len(places)} of {len(sums)} samples"
            broken.append(f"{whose} not finite for {many}, first sample {number}")
        else:
            finite.append(f"{whose} finite")
    return "; ".join([*broken, *finite]) or "its logits were not seen"

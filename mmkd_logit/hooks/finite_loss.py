"""Stopping at a loss that is not finite."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_count

from .networks import LogitObserver, trained_networks, unwrapped

_SHOWN = 16  # sample numbers in a message


class Record(NamedTuple):
    """One iteration.

    Attributes:
        epoch: Its epoch, from 0 on.
        iteration: Its number, from 0 on.
        samples: The batch's annotations, on the host.
        sums: By network, one number a sample (N,) that is finite where its logits are, on their
            device.
        terms: The names of the losses.
        losses: Their values, on their device.
    """

    epoch: int
    iteration: int
    samples: Any
    sums: dict[str, Tensor]
    terms: tuple[str, ...]
    losses: Tensor


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
        self._networks: dict[str, nn.Module] = {}
        self._observers: dict[str, LogitObserver] = {}
        self._records: list[Record] = []
        self._done = 0

    def before_train(self, runner: Runner) -> None:
        """Observe the logits from now on."""
        self._intervals = [h.interval for h in runner.hooks if isinstance(h, LoggerHook)]
        self._networks, self._records = trained_networks(runner), []
        self._observers = {
            prefix: LogitObserver(network, training=True)
            for prefix, network in self._networks.items()
        }

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep what explains the iteration, and check all since, if it is time."""
        logits = {}
        for prefix, network in self._networks.items():
            logits[f"{prefix}student"] = self._observers[prefix].take().get("logits")
            record = getattr(network, "record", None)
            logits[f"{prefix}teacher"] = None if record is None else record.teacher_logits
        sums = {
            name: values.sum(-1, dtype=torch.float32)
            for name, values in logits.items()
            if values is not None
        }
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
        text = self._find(runner)
        if text is not None:
            raise ValueError(self._explain(runner, text))
        # Not above: command lines read the hooks before they silence mmpretrain's warnings.
        from mmkd_logit.models.teacher import broken_weights

        for key in ("state_dict", "ema_state_dict"):
            broken = broken_weights(unwrapped(runner), checkpoint.get(key) or {})
            if broken:
                text = (
                    f"training stopped after iteration {self._done}: the weights {broken} are NaN "
                    "or infinite, though every loss was finite; the last gradient was not"
                )
                raise ValueError(self._explain(runner, text))

    def after_train(self, runner: Runner) -> None:
        """Remove the observers."""
        for each in self._observers.values():
            each.remove()
        self._networks, self._observers, self._records = {}, {}, []

    def _check(self, runner: Runner) -> None:
        """Stop, on all processes, if a loss was not finite on one."""
        text = self._find(runner)
        if get_world_size() > 1:
            device = next(runner.model.parameters()).device
            found = torch.tensor(float(text is not None), device=device)
            all_reduce(found, "max")
            if found.item():
                texts = all_gather_object(text)
                rank = next(r for r, each in enumerate(texts) if each is not None)
                text = texts[rank] if rank == get_rank() else f"{texts[rank]} (process {rank})"
        self._records.clear()
        if text is not None:
            raise ValueError(self._explain(runner, text))

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
        runner.logger.error(
            f"Iteration {record.iteration + 1}{who}: {terms}; samples {', '.join(numbers)}"
        )
        return (
            f"training stopped at iteration {record.iteration + 1} (epoch {record.epoch + 1}): the "
            f"loss{who} is not finite: {terms}; {_describe_logits(record, prefix)}{batch}"
        )

    def _explain(self, runner: Runner, text: str) -> str:
        pointer = Path(runner.work_dir, "last_checkpoint")
        last = Path(pointer.read_text().strip()).name if pointer.is_file() else None
        advice = f"go on from {last} with --resume" if last else "begin anew"
        return f"{text}. Lower the learning rate or look at these samples, then {advice}"


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
    for name, sums in record.sums.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        places = np.flatnonzero(~np.isfinite(sums.cpu().numpy()))
        if not len(places):
            finite.append(name)
            continue
        first = int(places[0])
        number = numbers[first] if first < len(numbers) else f"number {first} of the batch"
        broken.append(
            f"the {name}'s logits are not finite for {len(places)} of {len(sums)} samples, first "
            f"sample {number}"
        )
    if broken:
        return "; ".join([*broken, *(f"the {name}'s logits are finite" for name in finite)])
    if finite:
        return f"the logits of the {' and the '.join(finite)} are finite, the loss of them is not"
    return "its logits were not seen"

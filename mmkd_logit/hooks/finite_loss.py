"""Stopping at a loss that is not finite."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_count

from .networks import logits_of, trained_networks

_SHOWN = 16  # sample numbers in a message
_TERMS = ("ce", "kd")  # beside what has "loss" in its name


class Record(NamedTuple):
    """One iteration.

    Attributes:
        epoch: It belongs to, from 0 on.
        iteration: Its number, from 0 on.
        samples: The batch's annotations, on the host.
        sums: Row sums of logits (N,) on their device, by whose they are: finite where these are.
        terms: The names of what was logged.
    """

    epoch: int
    iteration: int
    samples: Any
    sums: dict[str, Tensor]
    terms: tuple[str, ...] = ()


def row_sums(logits: Tensor) -> Tensor:
    """Return one number a sample that is finite where its logits are."""
    return logits.detach().sum(-1, dtype=torch.float32)


def sample_numbers(samples: Any) -> list[str]:
    """Return the numbers of a batch's samples in their data set."""
    if isinstance(samples, SampleBatch):
        return [str(number) for number in samples.index.tolist()]
    if not isinstance(samples, (list, tuple)):
        return []
    numbers = (sample.get("sample_idx") for sample in samples if hasattr(sample, "get"))
    return ["?" if number is None else str(number) for number in numbers]


def shorten(numbers: list[str]) -> str:
    """Join numbers, the first of many."""
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(numbers[:_SHOWN]) + more


def first_broken(values: np.ndarray) -> int | None:
    """Return the place of the first value that is not finite, or None."""
    broken = np.flatnonzero(~np.isfinite(values))
    return int(broken[0]) if len(broken) else None


def describe_logits(record: Record, prefix: str) -> str:
    """Say whose logits are no numbers, and of which sample first."""
    numbers = sample_numbers(record.samples)
    broken, fine = [], []
    for whose, sums in record.sums.items():
        if not whose.startswith(prefix):
            continue
        name = whose.removeprefix(prefix)
        values = sums.cpu().numpy()
        first = first_broken(values)
        if first is None:
            fine.append(name)
            continue
        number = numbers[first] if first < len(numbers) else f"number {first} of the batch"
        count = int((~np.isfinite(values)).sum())
        broken.append(f"the {name}'s logits are not finite for {count} of {len(values)} samples, ")
        broken[-1] += f"first sample {number}"
    if broken:
        return "; ".join([*broken, *(f"the {name}'s logits are finite" for name in fine)])
    if fine:
        return f"the logits of the {' and the '.join(fine)} are finite, the loss of them is not"
    return "its logits were not seen"


def describe_terms(scalars: Any, prefix: str, records: Sequence[Record]) -> str:
    """Give the loss terms of an iteration."""
    found = []
    for key in records[0].terms:
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or "/" in name or not ("loss" in name or name in _TERMS):
            continue
        buffer, since = scalars.get(f"train/{key}"), sum(key in each.terms for each in records)
        if buffer is not None and len(buffer.data[0]) >= since:
            found.append(f"{name}={float(buffer.data[0][-since]):.6g}")
    return ", ".join(found)


# Training that has diverged, stopped.


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop where a loss is NaN or infinite, and say at which iteration, of which samples and why.

    The error names the iteration, the loss terms, whose logits (student's or teacher's) are not
    finite, the first such sample and those of the batch, all of which the log has. No checkpoint
    is written that holds weights which are no numbers, or that were trained by such a loss.

    No iteration waits for the device. The losses are those that are logged, and one number a
    sample of the logits stays on the device, until a line is logged, an epoch or ``limit``
    iterations end, validation begins or a checkpoint is to be written; then all iterations since
    are looked at, and training stops some of them late. Gradients are not looked at: a scaler of
    AMP meets infinite ones by design. Several processes look together, and stop together.

    Args:
        limit: After how many iterations it looks at the latest.

    Raises:
        ValueError: If ``limit`` is no positive integer; while training, if a loss is not finite.
    """

    changes_training = False

    # After RuntimeInfoHook has noted the losses; before they are logged and checkpoints written.
    priority = "NORMAL"

    def __init__(self, limit: int = 1000) -> None:
        self.limit = check_count("limit", limit)
        self._intervals: list[int] = []
        self._networks: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._records: list[Record] = []
        self._done = 0
        self._sums: dict[str, Tensor] | None = None
        self._samples: Any = None

    def before_train(self, runner: Runner) -> None:
        """Watch the logits from now on."""
        self._intervals = [h.interval for h in runner.hooks if isinstance(h, LoggerHook)]
        self._networks = trained_networks(runner)
        self._records = []
        for prefix, network in self._networks.items():
            head = logits_of(network)
            if head is not None:
                self._handles.append(head.register_forward_hook(self._noting(f"{prefix}student")))

    def _noting(self, whose: str) -> Callable:
        def note(module: Any, args: Any, output: Any) -> None:
            logits = getattr(output, "logits", output)  # Hugging Face wraps them
            if self._sums is not None and isinstance(logits, Tensor) and logits.ndim == 2:
                self._sums[whose] = row_sums(logits)

        return note

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Watch this iteration; validation passes the same modules."""
        self._sums = {}
        self._samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep what is needed to explain it, and look at all since, if it is time."""
        # Copies: compiled with CUDA graphs, the next step overwrites what this one returned.
        sums = {whose: values.clone() for whose, values in (self._sums or {}).items()}
        for prefix, network in self._networks.items():
            step = getattr(network, "record", None)
            if step is not None:
                sums[f"{prefix}teacher"] = row_sums(step.teacher_logits)
        terms, self._done = tuple(outputs or ()), runner.iter + 1
        record = Record(runner.epoch, runner.iter, self._samples, sums, terms)
        self._records.append(record)
        self._sums = None
        logged = any(self.every_n_inner_iters(batch_idx, n) for n in self._intervals)
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if logged or last or len(self._records) >= self.limit:
            self._look(runner)

    def before_val(self, runner: Runner) -> None:
        """Look before a network is measured; nobody else may have since."""
        if self._records:
            self._look(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let no checkpoint of a diverged training be written; one process alone writes them."""
        text = self._find(runner)
        if text is not None:
            raise ValueError(self._explain(runner, text))
        # Not above: command lines read the hooks before they silence mmpretrain's warnings.
        from mmkd_logit.models.teacher import broken_weights

        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for key in ("state_dict", "ema_state_dict"):
            broken = broken_weights(model, checkpoint.get(key) or {})
            if broken:
                text = (
                    f"training stopped after iteration {self._done}: the weights {broken} are NaN "
                    "or infinite, though every loss was finite; the last gradient was not"
                )
                raise ValueError(self._explain(runner, text))

    def after_train(self, runner: Runner) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._networks, self._records = [], {}, []

    def _look(self, runner: Runner) -> None:
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
        """Describe the first iteration since the last look whose loss is not finite."""
        scalars = runner.message_hub.log_scalars
        for prefix in self._networks:
            buffer = scalars.get(f"train/{prefix}loss")
            if buffer is None or not self._records:
                continue
            losses = buffer.data[0][-len(self._records) :]
            place = first_broken(losses)
            if place is not None:
                return self._describe(runner, self._records[place - len(losses) :], prefix)
        return None

    def _describe(self, runner: Runner, records: list[Record], prefix: str) -> str:
        record = records[0]
        terms = describe_terms(runner.message_hub.log_scalars, prefix, records)
        numbers = sample_numbers(record.samples)
        who = f" of the student {prefix.rstrip('/')}" if prefix else ""
        batch = f"; the batch has samples {shorten(numbers)}" if numbers else ""
        runner.logger.error(
            f"Iteration {record.iteration + 1}{who}: {terms}; samples {', '.join(numbers)}"
        )
        return (
            f"training stopped at iteration {record.iteration + 1} (epoch {record.epoch + 1}): the "
            f"loss{who} is not finite: {terms}; {describe_logits(record, prefix)}{batch}"
        )

    def _explain(self, runner: Runner, text: str) -> str:
        pointer = Path(runner.work_dir, "last_checkpoint")
        last = Path(pointer.read_text().strip()).name if pointer.is_file() else None
        advice = f"go on from {last} with --resume" if last else "begin anew"
        return f"{text}. Lower the learning rate or look at these samples, then {advice}"

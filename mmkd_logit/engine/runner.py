"""MMEngine's Runner and loops, in an order and from a place that can be resumed exactly."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmkd_logit.datasets.seeding import SeededSampler
from mmkd_logit.registry import LOOPS
from mmkd_logit.utils.arguments import type_name

from .resume import Place

_FORMAT, _STAMP = "%Y%m%d_%H%M%S", re.compile(r"\d{8}_\d{6}")


class OrderedRunner(Runner):
    """MMEngine's Runner, whose folder of logs is a new one, with a name after those that exist.

    MMEngine names it by the second of the start. Two starts in one second would write into the
    same ``scalars.json``, and after the clock was set back a later start has an earlier name.
    """

    _timestamp: str

    def setup_env(self, env_cfg: dict) -> None:
        """Do so when the processes know each other."""
        super().setup_env(env_cfg)
        stamps: list[Any] = [self._timestamp]
        if is_main_process():
            stamps = [later_stamp(self._timestamp, self._work_dir)]
        broadcast_object_list(stamps)
        (self._timestamp,) = stamps


def later_stamp(stamp: str, work_dir: str | Path) -> str:
    """Return a time in a name, or the first second after all those in a folder."""
    known = [path.name for path in Path(work_dir).iterdir() if _seconds(path.name) is not None]
    last = max(known, default="")
    seconds = _seconds(last)
    while seconds is not None and stamp <= last:  # summer time may repeat an hour
        seconds += 1
        stamp = time.strftime(_FORMAT, time.localtime(seconds))
    return stamp


def _seconds(name: str) -> float | None:
    if not _STAMP.fullmatch(name):
        return None
    try:
        return time.mktime(time.strptime(name, _FORMAT))
    except (ValueError, OverflowError):
        return None


# MMEngine's Runner, without what it writes before anything has been checked.


class QuietRunner(OrderedRunner):
    """A Runner that leaves the config of an earlier run in the work folder where it is.

    MMEngine writes its own over it when the model is built; ``tools/train.py`` lets it be written
    when training begins, and ``tools/test.py``, whose config is not the one that was trained by,
    never.
    """

    def dump_config(self) -> None:
        """Write nothing."""


# A Runner that measures the weights of a checkpoint and no others.


class ExactRunner(QuietRunner):
    """A Runner that refuses a checkpoint of another network, where MMEngine would only warn.

    What would be left at random would be measured. Entries of a checkpoint for parts that the
    network does not have at all, such as a distiller's adapters, are left out.
    """

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load the weights, all of them."""
        self.register_hook(_LeaveOthers())
        try:
            return super().load_checkpoint(filename, *args, **{**kwargs, "strict": True})
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = "; ".join(line[:200] for line in lines[1:4]) or str(error)
            raise ValueError(
                f"{filename} does not fit the network of this config: {reason}. Name the config "
                "that the checkpoint was trained by"
            ) from None


class _LeaveOthers(Hook):
    """Leave out of a checkpoint what is of no part of the network."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state = checkpoint.get("state_dict", checkpoint)
        if not isinstance(state, Mapping) or model._load_state_dict_pre_hooks:  # which rename
            return
        parts = {name for name, _ in model.named_children()}
        parts |= {*model._parameters, *model._buffers}
        named = {key: str(key).removeprefix("module.").partition(".")[0] for key in state}
        if not parts.intersection(named.values()):
            return
        others = [key for key, part in named.items() if part not in parts]
        for key in others:
            del state[key]  # type: ignore[attr-defined]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            print_log(f"Leaving out {others[0]}{more}, of no part of the network.", "current")


# The validation that belongs to a place in a training.


def validate_if_due(loop: Any, done: int, end: int) -> None:
    """Validate, if it is time, as MMEngine's training loops do, and note that it is done."""
    loop._decide_current_val_interval()
    due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
    if loop.runner.val_loop is not None and due:
        loop.runner.val_loop.run()
    loop.place = loop.place._replace(validated=True)


# What the workers of data loaders draw, and their end.


def say_what_workers_draw(loader: DataLoader, runner: Runner, within: bool) -> None:
    """Say in the log if a run is resumed whose workers' random states are gone.

    Workers that begin with an epoch are seeded alike in each.
    """
    lost = loader.num_workers and (within or loader.persistent_workers)
    if lost and not isinstance(loader.sampler, SeededSampler):
        runner.logger.warning(
            "What transforms draw at random in the data loader's workers is not resumed. Where "
            "they do, use mmkd_logit.SeededSampler with mmkd_logit.SeededDataset, whose pictures "
            "do not depend on workers."
        )


def end_workers(runner: Runner) -> None:
    """End the workers of the data that a run has trained on, validated and tested.

    Collected as garbage with their Runner, whose parts name each other, each of them would be
    waited for five seconds.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        # The loader has those that persist, and a loop by iterations the pass that it is in.
        for name in ("dataloader", "dataloader_iterator"):
            owner: Any = getattr(loop, name, None)
            iterator: Any = getattr(owner, "_iterator", None)
            if hasattr(iterator, "_shutdown_workers"):
                owner._iterator = None
                iterator._shutdown_workers()


# The batches of indices of a data loader, of which some were served before.


class ServedBatches:
    """Stands for a loader's batch sampler, and passes over batches without loading them."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._rest: _Rest | None = None
        self._closed = False

    @classmethod
    def install(cls, loader: DataLoader) -> "ServedBatches":
        """Let a loader read its indices from here."""
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        found = getattr(loader, name)
        if not isinstance(found, cls):
            found = cls(found)
            # torch refuses an assignment, since others might not fit the batch size.
            vars(loader)[name] = found
        return found

    def __getattr__(self, name: str) -> Any:
        if name == "_sampler":  # of an object that is being made
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator:
        if self._closed:
            return iter(())
        if self._rest is not None and not self._rest.begun:
            return self._rest  # a loader with workers asks twice before it reads
        self._rest = None
        return iter(self._sampler)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Serve nothing meanwhile, whoever opens the loader."""
        self._closed = True
        try:
            yield
        finally:
            self._closed = False

    def pass_over(self, count: int, begin_pass: Callable[[int], None] | None = None) -> int:
        """Let the next iterator begin after some batches."""
        batches, passes = iter(self._sampler), 0
        for _ in range(count):
            if next(batches, None) is not None:
                continue
            if begin_pass is None:
                break
            passes += 1
            begin_pass(passes)
            batches = iter(self._sampler)
            next(batches)
        self._rest = _Rest(batches)
        return passes


class _Rest:
    """What is left of the batches, which knows whether somebody reads it."""

    def __init__(self, batches: Iterator) -> None:
        self._batches = batches
        self.begun = False

    def __iter__(self) -> "_Rest":
        return self

    def __next__(self) -> Any:
        self.begun = True
        return next(self._batches)


# A data loader that begins again when it ends.


class EndlessBatches:
    """What MMEngine's loop by iterations reads, opened when it is first read on either stack."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._iterator: Any = None
        self._passes = 0

    def __iter__(self) -> "EndlessBatches":
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self.open()
        try:
            return next(self._iterator)
        except StopIteration:
            self.begin_pass(self._passes + 1)
            self.open()
            return next(self._iterator)

    def open(self) -> None:
        """Make the loader ready to be read."""
        self._iterator = iter(self._loader)

    def begin_pass(self, number: int) -> None:
        """Tell the sampler which pass through the data begins."""
        self._passes = number
        sampler = self._loader.sampler
        if not hasattr(sampler, "set_epoch"):
            sampler = getattr(self._loader.batch_sampler, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)


# Training by epochs that can go on within one.


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    A checkpoint may be written after any iteration. The epoch is then entered where it was left:
    batches that were served are passed over in the batch sampler and not loaded, iterations keep
    their numbers, and hooks see each iteration once. A validation that a run did not live to do
    is done first. Without interruption it does what MMEngine's does, bit for bit.

    Args:
        runner: Of the run.
        dataloader: As of MMEngine's loop.
        max_epochs: As of MMEngine's loop.
        **kwargs: As of MMEngine's loop: when to validate.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self.place = Place()
        self._served = ServedBatches.install(self.dataloader)
        self._resumed = False
        self._passed_over = 0

    def go_on_from(self, place: Place) -> None:
        """Begin elsewhere than at the beginning.

        Args:
            place: Of a checkpoint.
        """
        size = len(self.dataloader)
        self.place = place._replace(batch=place.batch if 0 <= place.batch <= size else 0)
        self._resumed = True

    def batches_before(self, epoch: int) -> int:
        """Return how many batches the epochs before one have.

        Args:
            epoch: From 0 on.
        """
        return epoch * len(self.dataloader)

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        if self._resumed:
            self._go_on()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            validate_if_due(self, self._epoch, self._max_epochs)
        self.runner.call_hook("after_train")
        return self.runner.model

    def _go_on(self) -> None:
        self._passed_over = self.place.batch
        say_what_workers_draw(self.dataloader, self.runner, within=bool(self.place.batch))
        if not self.place.batch:
            self.runner.call_hook("restore_state")
            if not self.place.validated:
                validate_if_due(self, self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """Train for an epoch, or for the rest of one."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        first, self._passed_over = self._passed_over, 0
        for idx, data_batch in enumerate(self._open(first), first):
            self.run_iter(idx, data_batch)
        self.place = Place(self._epoch + 1, self._iter, 0, validated=False)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train for an iteration.

        Args:
            idx: Of the batch in the epoch.
            data_batch: Of the data loader.
        """
        # What hooks save of this iteration goes on after it.
        self.place = Place(self._epoch, self._iter + 1, idx + 1)
        super().run_iter(idx, data_batch)

    def _open(self, first: int) -> Iterator:
        """Make the loader ready; afterwards the random states are those of a run without a stop."""
        if not self._resumed:
            return iter(self.dataloader)
        self._resumed = False
        if first:
            self._served.pass_over(first)
            batches = iter(self.dataloader)
            self.runner.call_hook("restore_state")
            return batches
        with self._as_before():
            return iter(self.dataloader)

    def _as_before(self) -> Any:
        """Keep the random states where the run had its workers already."""
        # Not above: command lines read this before they silence mmpretrain's warnings.
        from mmkd_logit.models.build import preserve_random_state

        had = self.dataloader.persistent_workers and self._iter > 0
        return preserve_random_state() if had else nullcontext()


# Training by iterations that goes on where it was.


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    Batches that were served are passed over in the batch sampler and not loaded, with an
    endless sampler and with others, and a validation that a run did not live to do is done first.

    Args:
        runner: Of the run.
        dataloader: As of MMEngine's loop.
        max_iters: As of MMEngine's loop.
        **kwargs: As of MMEngine's loop: when to validate, and whether nothing is passed over.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_iters: int, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            # MMEngine 0.10 opens the loader here, and workers would read ahead in an endless
            # sampler, which nobody puts back.
            diff_rank_seed = runner._randomness_cfg.get("diff_rank_seed", False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        self._served = ServedBatches.install(dataloader)
        with self._served.closed():
            super().__init__(runner, dataloader, max_iters, **kwargs)
        self.dataloader_iterator = EndlessBatches(self.dataloader)
        self.place = Place()
        self._resumed = False
        self._ahead = 0  # of batches before iterations, where these have another size now

    def go_on_from(self, place: Place) -> None:
        """Begin elsewhere than at the beginning.

        Args:
            place: Of a checkpoint.
        """
        self.place = place
        self._resumed = True

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        # The whole training is one epoch to hooks.
        self.runner.call_hook("before_train_epoch")
        if self._resumed:
            self._go_on()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            validate_if_due(self, self._iter, self._max_iters)
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _go_on(self) -> None:
        self._resumed = False
        self._ahead = self.place.batch - self.place.iter
        say_what_workers_draw(self.dataloader, self.runner, within=True)
        if not getattr(self, "fast_forward_on_resume", False):
            self._served.pass_over(self.place.batch, self.dataloader_iterator.begin_pass)
        self.dataloader_iterator.open()
        self.runner.call_hook("restore_state")
        if not self.place.validated:
            validate_if_due(self, self._iter, self._max_iters)

    def run_iter(self, data_batch: Any) -> None:
        """Train for an iteration.

        Args:
            data_batch: Of the data loader.
        """
        done = self._iter + 1
        self.place = Place(self._epoch, done, done + self._ahead, validated=False)
        super().run_iter(data_batch)


# MMEngine's train loops replaced by ours.


_OURS = dict(
    EpochBasedTrainLoop="mmkd_logit.ResumableEpochBasedTrainLoop",
    IterBasedTrainLoop="mmkd_logit.ResumableIterBasedTrainLoop",
)


def use_resumable_loop(cfg: Config) -> None:
    """Let a config that trains by one of MMEngine's loops do so by ours, which can be resumed.

    Called when the config's hash is taken: the loops do the same.
    """
    settings = dict(cfg.train_cfg)
    kind = settings.pop("type", None)
    if kind is None and "by_epoch" in settings:
        kind = "EpochBasedTrainLoop" if settings.pop("by_epoch") else "IterBasedTrainLoop"
    ours = _OURS.get(type_name(kind) or "")
    if ours is not None:
        cfg.train_cfg = dict(type=ours, **settings)


# A Runner whose checkpoints are of all its processes.


class ResumableRunner(QuietRunner):
    """A Runner that collects the state of every process before the first one saves.

    Attributes:
        made_of: What the run is made of, as its checkpoints say (:mod:`.run_identity`).
    """

    made_of: dict[str, Any] | None = None

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; every process calls this."""
        if kwargs.get("save_optimizer", True):  # else nobody can resume it
            self.call_hook("gather_state")
        super().save_checkpoint(*args, **kwargs)

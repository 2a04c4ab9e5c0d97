"""MMEngine's Runner and loops, with what resuming exactly needs of them."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmkd_logit.checkpoint import load_exactly, make_plain, weights_for
from mmkd_logit.datasets.seeding import SeededSampler
from mmkd_logit.hooks.networks import unwrapped
from mmkd_logit.registry import LOOPS
from mmkd_logit.utils.arguments import type_name

from .resume import Progress

_STAMP = "%Y%m%d_%H%M%S"  # of the names of MMEngine's folders of logs


class QuietRunner(Runner):
    """MMEngine's Runner, which writes over nothing that an earlier run left in the work folder.

    Its folder of logs is a new one: two starts in one second would write into the same
    ``scalars.json``. MMEngine's copy of the config is written when training begins, by
    ``tools/train.py``, and not when the model is built.
    """

    _timestamp: str

    def setup_env(self, env_cfg: dict) -> None:
        """Name the folder of logs once the processes know each other."""
        super().setup_env(env_cfg)
        stamps = [self._timestamp]
        while Path(self._work_dir, stamps[0]).exists():
            later = time.mktime(time.strptime(stamps[0], _STAMP)) + 1
            stamps = [time.strftime(_STAMP, time.localtime(later))]
        broadcast_object_list(stamps)
        (self._timestamp,) = stamps

    def dump_config(self) -> None:
        """Write nothing."""


class ExactRunner(QuietRunner):
    """A Runner that refuses a checkpoint of another network, where MMEngine would only warn.

    What would be left at random would be measured. Entries of a checkpoint for parts that the
    network does not have at all, such as a distiller's adapters, are left out.
    """

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load the weights, all of them."""
        self.register_hook(_ExactWeights(filename))
        return super().load_checkpoint(filename, *args, **kwargs)


class _ExactWeights(Hook):
    """Refuse a checkpoint that does not fit; what is of no part of the network is left out."""

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model: Any = unwrapped(runner)
        if isinstance(model, BaseTTAModel):
            model = model.module
        state: Any = weights_for(model, checkpoint)
        self._leave_others(model, state)
        advice = "Name the config that the checkpoint was trained by."
        who = "the network of this config"
        checkpoint["state_dict"] = load_exactly(model, state, self.filename, who, advice)

    def _leave_others(self, model: nn.Module, state: dict[str, Any]) -> None:
        if model._load_state_dict_pre_hooks:  # which rename
            return
        parts = {name for name, _ in model.named_children()}
        parts |= {*model._parameters, *model._buffers}
        named = {key: key.partition(".")[0] for key in state}
        if not parts.intersection(named.values()):
            return
        others = [key for key, part in named.items() if part not in parts]
        for key in others:
            del state[key]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            print_log(f"Leaving out {others[0]}{more}, of no part of the network.", "current")


class ResumableRunner(QuietRunner):
    """A Runner that collects the state of every process before the first one saves.

    Its checkpoints are plain; what cannot be made so is refused before training, or when it is
    first there.

    Attributes:
        computed: What the run computes, for its checkpoints; None where a hook knows.
    """

    computed: dict[str, Any] | None = None

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; every process calls this."""
        if kwargs.get("save_optimizer", True):  # otherwise it cannot be resumed
            self.call_hook("gather_state")
        super().save_checkpoint(*args, **kwargs)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks, and see to it that what is saved can be read."""
        if fn_name == "before_train":
            make_plain(self._state())
        super().call_hook(fn_name, **kwargs)
        if fn_name == "before_save_checkpoint":
            make_plain(kwargs["checkpoint"])

    def _state(self) -> dict[str, Any]:
        """Return what MMEngine saves, hooks aside."""
        some = self.param_schedulers or []
        some = some if isinstance(some, dict) else {"": some}
        states = {name: [each.state_dict() for each in named] for name, named in some.items()}
        return dict(
            meta=dict(dataset_meta=self._dataset_meta()),
            state_dict=unwrapped(self).state_dict(),
            message_hub=self.message_hub.state_dict(),
            optimizer=self.optim_wrapper.state_dict(),
            param_schedulers=states.get("", states),
        )

    def _dataset_meta(self) -> Any:
        return getattr(self.train_dataloader.dataset, "metainfo", None)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Load the weights; when resuming, the same metainfo of the data is not warned of."""
        checkpoint = super().load_checkpoint(*args, **kwargs)
        if self._resume:
            meta, own = checkpoint["meta"], self._dataset_meta()
            saved = dict(dataset_meta=own)
            make_plain(saved)
            if pickle.dumps(saved["dataset_meta"]) == pickle.dumps(meta.get("dataset_meta")):
                meta["dataset_meta"] = own
        return checkpoint


def end_workers(runner: Runner) -> None:
    """End the workers of the data that a run has trained on, validated and tested.

    Collected as garbage with their Runner, whose parts name each other, each of them would be
    waited for five seconds.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        # The loader has those that persist, and a loop by iterations the pass that it is in.
        for owner in (getattr(loop, "dataloader", None), loop):
            _end_workers_of(owner)


def _end_workers_of(owner: Any) -> None:
    iterator: Any = getattr(owner, "_iterator", None)
    if hasattr(iterator, "_shutdown_workers"):
        owner._iterator = None
        iterator._shutdown_workers()


# Training loops that continue within an epoch.


class SkippingSampler:
    """A data loader's batch sampler that skips the batches which a run has consumed.

    They are not loaded.

    Args:
        sampler: The loader's own.
        endless: Whether it begins again when it ends, as MMEngine's loop by iterations does.

    Attributes:
        skip: How many batches the next iterator leaves out.
        closed: Whether an iterator gives nothing at all.
    """

    def __init__(self, sampler: Any, endless: bool = False) -> None:
        self._sampler = sampler
        self._endless = endless
        self.skip = 0
        self.closed = False

    @classmethod
    def install(cls, loader: DataLoader, endless: bool = False) -> "SkippingSampler":
        """Let a loader read its indices from here."""
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        # torch refuses an assignment, since others might not fit the batch size.
        vars(loader)[name] = cls(getattr(loader, name), endless)
        return vars(loader)[name]

    def __getattr__(self, name: str) -> Any:
        if name == "_sampler":  # of an object that is being made
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator:
        # Runs when the first batch is asked for: a loader with workers makes two iterators, and
        # reads the second.
        if self.closed:
            return
        batches = self._passes() if self._endless else iter(self._sampler)
        for _ in range(self.skip):
            next(batches, None)
        self.skip = 0
        yield from batches

    def _passes(self) -> Iterator:
        sampler = getattr(self._sampler, "sampler", self._sampler)
        number = 0
        while len(self._sampler):
            yield from self._sampler
            number += 1
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(number)


def _validate_if_due(loop: Any, done: int, end: int) -> None:
    """Validate, if it is time, as MMEngine's training loops do, and note that it is done."""
    loop._decide_current_val_interval()
    due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
    if loop.runner.val_loop is not None and due:
        loop.runner.val_loop.run()
    loop.progress = loop.progress._replace(validated=True)


def _warn_of_workers(loader: DataLoader, runner: Runner, within: bool) -> None:
    """Warn of a resumed run whose workers' random states are gone.

    Workers that begin with an epoch are seeded alike in each.
    """
    lost = loader.num_workers and (within or loader.persistent_workers)
    if lost and not isinstance(loader.sampler, SeededSampler):
        runner.logger.warning(
            "What transforms draw at random in the data loader's workers is not resumed. Where "
            "they do, use mmkd_logit.SeededSampler with mmkd_logit.SeededDataset, whose images "
            "do not depend on workers."
        )


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    A checkpoint may be written after any iteration. The epoch is then entered where it was left:
    consumed batches are skipped in the batch sampler and not loaded, iterations keep their
    numbers, and hooks see each iteration once. A validation that was due is done first. Without
    interruption it does what MMEngine's does, bit for bit.

    Args:
        runner: Of the run.
        dataloader: As of MMEngine's loop.
        max_epochs: As of MMEngine's loop.
        **kwargs: As of MMEngine's loop: when to validate.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self.progress = Progress()
        self._sampler = SkippingSampler.install(self.dataloader)
        self._resumed = False

    def resume_from(self, progress: Progress) -> None:
        """Begin where a checkpoint was written."""
        self.progress, self._resumed = progress, True

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        if self._resumed:
            _warn_of_workers(self.dataloader, self.runner, within=bool(self.progress.batch))
            if not self.progress.batch:
                self._begin_at_an_epoch()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            _validate_if_due(self, self._epoch, self._max_epochs)
        self.runner.call_hook("after_train")
        return self.runner.model

    def _begin_at_an_epoch(self) -> None:
        if self.dataloader.persistent_workers and self._iter:
            iter(self.dataloader)  # the run had these workers already, and to start them draws
        self.runner.call_hook("restore_state")
        if not self.progress.validated:
            _validate_if_due(self, self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """Train for an epoch, or for the rest of one."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        first = self._sampler.skip = self.progress.batch
        batches = iter(self.dataloader)
        if first:
            self.runner.call_hook("restore_state")
        for idx, data_batch in enumerate(batches, first):
            self.run_iter(idx, data_batch)
        self.progress = Progress(self._epoch + 1, self._iter, 0, validated=False)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train for an iteration, after which a checkpoint that hooks save of it continues."""
        self.progress = Progress(self._epoch, self._iter + 1, idx + 1)
        super().run_iter(idx, data_batch)


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    Consumed batches are skipped in the batch sampler and not loaded, with an endless sampler and
    with others, and a validation that was due is done first.

    Args:
        runner: Of the run.
        dataloader: As of MMEngine's loop.
        max_iters: As of MMEngine's loop.
        **kwargs: As of MMEngine's loop: when to validate.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_iters: int, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            diff_rank_seed = runner._randomness_cfg.get("diff_rank_seed", False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        self._sampler = SkippingSampler.install(dataloader, endless=True)
        # MMEngine 0.11.0rc3 opens the loader here, and workers would read ahead in an endless
        # sampler, whose state cannot be put back.
        self._sampler.closed = True
        super().__init__(runner, dataloader, max_iters, **kwargs)
        self._sampler.closed = False
        for owner in (self.dataloader, getattr(self, "dataloader_iterator", None)):
            _end_workers_of(owner)
        self.progress = Progress()
        self._resumed = False
        self._iterator: Any = None

    def resume_from(self, progress: Progress) -> None:
        """Begin where a checkpoint was written."""
        self.progress, self._resumed = progress, True

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        # The whole training is one epoch to hooks.
        self.runner.call_hook("before_train_epoch")
        self._sampler.skip = self.progress.batch
        self._iterator = iter(self.dataloader)
        if self._resumed:
            _warn_of_workers(self.dataloader, self.runner, within=True)
            self.runner.call_hook("restore_state")
            if not self.progress.validated:
                _validate_if_due(self, self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self._iterator))
            _validate_if_due(self, self._iter, self._max_iters)
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Train for an iteration, after which a checkpoint that hooks save of it continues."""
        batch = self.progress.batch + 1
        self.progress = Progress(self._epoch, self._iter + 1, batch, validated=False)
        super().run_iter(data_batch)


_OURS = dict(
    EpochBasedTrainLoop="mmkd_logit.ResumableEpochBasedTrainLoop",
    IterBasedTrainLoop="mmkd_logit.ResumableIterBasedTrainLoop",
)


def make_resumable(cfg: Config) -> None:
    """Let a config that trains by one of MMEngine's loops do so by ours, which can be resumed.

    Called when the config's fingerprint is taken: the loops do the same.
    """
    settings = dict(cfg.train_cfg)
    kind = settings.pop("type", None)
    if kind is None and "by_epoch" in settings:
        kind = "EpochBasedTrainLoop" if settings.pop("by_epoch") else "IterBasedTrainLoop"
    ours = _OURS.get(type_name(kind) or "")
    if ours is not None:
        cfg.train_cfg = dict(type=ours, **settings)
    for hook in (*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])):
        if isinstance(hook, dict) and type_name(hook) == "EarlyStoppingHook":
            hook.setdefault("priority", "LOW")  # before a checkpoint of the validation is written

"""MMEngine's Runner and loops, with what resuming exactly needs of them."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.visualization import Visualizer
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mmkd_logit.checkpoint import load_exactly, make_plain, weights_for
from mmkd_logit.datasets.seeding import SeededSampler
from mmkd_logit.hooks.networks import optimizers, schedulers, unwrapped
from mmkd_logit.registry import LOOPS, find_class
from mmkd_logit.utils.arguments import type_name

from .config import teachers_of
from .resume import Progress

_STAMP = "%Y%m%d_%H%M%S"  # of the names of MMEngine's folders of logs


_FIGURE = ("fig_save_canvas", "fig_save", "ax_save", "dpi")


class _DrawsLater(Visualizer):
    """Makes the figure when it is first drawn on: that imports matplotlib, and few runs draw."""

    def __init__(self, name: str = "visualizer", *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        for each in _FIGURE:
            delattr(self, each)

    def _initialize_fig(self, fig_cfg: dict) -> tuple:
        return None, SimpleNamespace(get_dpi=int), None

    def __getattr__(self, name: str) -> Any:
        if name not in _FIGURE:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        figure = super()._initialize_fig(self.fig_save_cfg)
        self.fig_save_canvas, self.fig_save, self.ax_save = figure
        self.dpi = self.fig_save.get_dpi()
        return vars(self)[name]


def configure_cublas(deterministic: bool) -> None:
    """Let cuBLAS, where asked to, sum in one order; it reads the variable when it starts."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _uses_cuda_graphs(compiled: Any) -> bool:
    """Whether settings of ``torch.compile`` record CUDA graphs."""
    settings = compiled if isinstance(compiled, Mapping) else {}
    modes = ("reduce-overhead", "max-autotune")
    options = settings.get("options") or {}
    return settings.get("mode") in modes or bool(options.get("triton.cudagraphs"))


def _make_momentum(optimizer: Optimizer) -> None:
    """Make the momentum that SGD makes in its first step, 0: the step gives the same bits."""
    for group in optimizer.param_groups:
        if group.get("momentum") and group.get("dampening") == 0:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


class QuietRunner(Runner):
    """MMEngine's Runner, which writes over nothing that an earlier run left in the work folder.

    Its folder of logs is a new one: two starts in one second would write into the same
    ``scalars.json``. Its name is new in the process, where MMEngine keeps loggers and values by it.
    MMEngine's copy of the config is written when training begins, by
    ``tools/train.py``, and not when the model is built.
    """

    _timestamp: str
    _stamps: ClassVar[set[str]] = set()  # of this process

    def setup_env(self, env_cfg: dict) -> None:
        """Name the folder of logs once the processes know each other."""
        super().setup_env(env_cfg)
        stamps = [self._timestamp]
        while stamps[0] in self._stamps or Path(self._work_dir, stamps[0]).exists():
            later = time.mktime(time.strptime(stamps[0], _STAMP)) + 1
            stamps = [time.strftime(_STAMP, time.localtime(later))]
        broadcast_object_list(stamps)
        (self._timestamp,) = stamps
        self._stamps.add(self._timestamp)

    def set_randomness(self, *args: Any, deterministic: bool = False, **kwargs: Any) -> None:
        """Tell cuBLAS as well."""
        configure_cublas(deterministic)
        super().set_randomness(*args, deterministic=deterministic, **kwargs)

    def dump_config(self) -> None:
        """Write nothing."""

    def _maybe_compile(self, target: str) -> None:
        """Compile; what a CUDA graph makes is gone at the next iteration, SGD's momentum too."""
        if target == "train_step" and _uses_cuda_graphs(self.cfg.get("compile")):
            for name, teacher in teachers_of(self.cfg).items():
                if teacher.compile:
                    raise ValueError(
                        f"compile={self.cfg.compile} records CUDA graphs, and {name}.compile would "
                        "start new ones within an iteration; take that out: what the run compiles "
                        "includes the teacher"
                    )
            for optimizer in optimizers(self):
                _make_momentum(optimizer)
        super()._maybe_compile(target)

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """Build the visualizer, without its figure until something is drawn."""
        if isinstance(visualizer, Visualizer):
            return visualizer
        default = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
        settings = dict(visualizer or default)
        with DefaultScope.overwrite_default_scope(settings.get("_scope_")):
            kind = find_class("visualizer", VISUALIZERS, settings["type"])
        return super().build_visualizer(
            dict(settings, type=type(kind.__name__, (_DrawsLater, kind), {}))
        )


class ExactRunner(QuietRunner):
    """A Runner that refuses a checkpoint of another network, where MMEngine would only warn.

    What would be left at random would be measured. Entries of a checkpoint for parts that the
    network does not have at all, such as a distiller's adapters, are left out.
    """

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Check the weights before hooks see them."""
        if fn_name == "after_load_checkpoint":
            self._load_exactly(kwargs["checkpoint"])
        super().call_hook(fn_name, **kwargs)

    def _load_exactly(self, checkpoint: dict) -> None:
        model: Any = unwrapped(self)
        if isinstance(model, BaseTTAModel):
            model = model.module
        state: Any = weights_for(model, checkpoint)
        parts = {key.partition(".")[0] for key in model.state_dict()}
        others = [key for key in state if key.partition(".")[0] not in parts]
        renames = bool(model._load_state_dict_pre_hooks)
        if 0 < len(others) < len(state) and not renames:
            print_log(f"Leaving out {others[0]} ..., of no part of the network.", "current")
            for key in others:
                del state[key]
        checkpoint["state_dict"] = load_exactly(model, state, str(self._load_from))


class ResumableRunner(QuietRunner):
    """A Runner that collects the state of every process before the first one saves.

    Its checkpoints are plain; what cannot be made so is refused before training, or when it is
    first there.
    """

    computed: dict[str, Any] | None = None  # by the run, for its checkpoints

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
        return dict(
            meta=dict(dataset_meta=self._metainfo()),
            state_dict=unwrapped(self).state_dict(),
            message_hub=self.message_hub.state_dict(),
            optimizer=self.optim_wrapper.state_dict(),
            param_schedulers=[each.state_dict() for each in schedulers(self)],
        )

    def _metainfo(self) -> Any:
        return getattr(self.train_dataloader.dataset, "metainfo", None)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint; of one to resume, FingerprintHook compares the data, and not this."""
        checkpoint = super().load_checkpoint(*args, **kwargs)
        if self._resume:
            checkpoint["meta"]["dataset_meta"] = self._metainfo()
        return checkpoint


def end_workers(runner: Runner) -> None:
    """End the workers of the data that a run has trained on, validated and tested.

    Collected as garbage with their Runner, whose parts name each other, each of them would be
    waited for five seconds.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        # The loader has those that persist, and a loop by iterations the pass that it is in.
        owners: list[Any] = [getattr(loop, "dataloader", None), loop]
        for owner in owners:
            iterator: Any = getattr(owner, "_iterator", None)
            if hasattr(iterator, "_shutdown_workers"):
                owner._iterator = None
                iterator._shutdown_workers()


class SkippingSampler:
    """A data loader's batch sampler that skips batches, which are not loaded then.

    An endless one begins again when it ends, as MMEngine's loop by iterations does.
    """

    def __init__(self, sampler: Any, endless: bool = False) -> None:
        self._sampler = sampler
        self._endless = endless
        self.skip = 0  # batches that the next iterator leaves out

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


class _Resumable:
    """What both training loops do to continue."""

    runner: Runner
    dataloader: DataLoader
    progress = Progress()
    _resumed = False

    def resume_from(self, progress: Progress) -> None:
        """Begin where a checkpoint was written."""
        self.progress, self._resumed = progress, True

    def _restore(self, done: int, end: int) -> None:
        """Put the random states back, and do a validation that was due."""
        self.runner.call_hook("restore_state")
        if not self.progress.validated:
            self._validate_if_due(done, end)

    def _validate_if_due(self: Any, done: int, end: int) -> None:
        """Validate, if it is time, as MMEngine's training loops do, and note that it is done."""
        self._decide_current_val_interval()
        due = done >= self.val_begin and (done % self.val_interval == 0 or done == end)
        if self.runner.val_loop is not None and due:
            self.runner.val_loop.run()
        self.progress = self.progress._replace(validated=True)

    def _warn_of_workers(self, within: bool) -> None:
        """Warn where workers' random states are gone; those that begin an epoch have new ones."""
        loader = self.dataloader
        lost = loader.num_workers and (within or loader.persistent_workers)
        if lost and not isinstance(loader.sampler, SeededSampler):
            self.runner.logger.warning(
                "What transforms draw at random in the data loader's workers is not resumed. Where "
                "they do, use mmkd_logit.SeededSampler with mmkd_logit.SeededDataset, whose images "
                "do not depend on workers."
            )


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(_Resumable, EpochBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    A checkpoint may be written after any iteration. The epoch is then entered where it was left:
    consumed batches are skipped in the batch sampler and not loaded, iterations keep their
    numbers, and hooks see each iteration once. A validation that was due is done first. Without
    interruption it does what MMEngine's does, bit for bit.

    Its arguments are those of MMEngine's loop.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self._sampler = SkippingSampler.install(self.dataloader)

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        if self._resumed:
            self._warn_of_workers(within=bool(self.progress.batch))
        if self._resumed and not self.progress.batch:
            if self.dataloader.persistent_workers and self._iter:
                iter(self.dataloader)  # the run had these workers already, and to start them draws
            self._restore(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook("after_train")
        return self.runner.model

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
class ResumableIterBasedTrainLoop(_Resumable, IterBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    Consumed batches are skipped in the batch sampler and not loaded, with an endless sampler and
    with others, and a validation that was due is done first.

    Its arguments are those of MMEngine's loop.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_iters: int, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            diff_rank_seed = runner._randomness_cfg.get("diff_rank_seed", False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        # MMEngine 0.11.0rc3 opens the loader here, and workers would read ahead in an endless
        # sampler, whose state cannot be put back.
        nothing = DataLoader(dataloader.dataset, batch_sampler=[])
        super().__init__(runner, nothing, max_iters, **kwargs)
        self.dataloader = dataloader
        self._sampler = SkippingSampler.install(dataloader, endless=True)
        self._iterator: Any = None

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        # The whole training is one epoch to hooks.
        self.runner.call_hook("before_train_epoch")
        self._sampler.skip = self.progress.batch
        self._iterator = iter(self.dataloader)
        if self._resumed:
            self._warn_of_workers(within=True)
            self._restore(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self._iterator))
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Train for an iteration, after which a checkpoint that hooks save of it continues."""
        batch = self.progress.batch + 1
        self.progress = Progress(self._epoch, self._iter + 1, batch, validated=False)
        super().run_iter(data_batch)


def make_resumable(cfg: Config) -> None:
    """Let a config that trains by one of MMEngine's loops do so by ours, which can be resumed.

    Parameter groups of equal settings are merged. Called when the config's fingerprint is taken:
    both compute the same.
    """
    settings = dict(cfg.train_cfg)
    kind = type_name(settings.pop("type", None))
    if kind is None and "by_epoch" in settings:
        kind = "EpochBasedTrainLoop" if settings.pop("by_epoch") else "IterBasedTrainLoop"
    if kind in ("EpochBasedTrainLoop", "IterBasedTrainLoop"):
        cfg.train_cfg = dict(type=f"mmkd_logit.Resumable{kind}", **settings)
    merge_parameter_groups(cfg.optim_wrapper)
    for hook in (*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])):
        if isinstance(hook, dict) and type_name(hook) == "EarlyStoppingHook":
            hook.setdefault("priority", "LOW")  # before a checkpoint of the validation is written


def merge_parameter_groups(optim_wrapper: dict) -> None:
    """Let MMEngine's default constructor of optimizers merge groups of equal settings."""
    for cfg in (optim_wrapper, *optim_wrapper.get("students", {}).values()):
        default = type_name(cfg.get("constructor")) in (None, "DefaultOptimWrapperConstructor")
        if cfg.get("paramwise_cfg") and default:
            cfg["constructor"] = "mmkd_logit.MergedGroupsOptimConstructor"

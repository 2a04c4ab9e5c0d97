"""A run of MMEngine's, one iteration at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmkd_logit.engine.checkpoint import install_safe_checkpoint_loading
from mmkd_logit.models import FrozenTeacher
from mmkd_logit.models.teacher_cache import TeacherCache

Probe = tuple[Any, str, str]


class RunnerSession:
    """What ``tools/train.py`` does with a config, driven step by step.

    Everything is the Runner's own: how model, loader, hooks and optimizer are built, and
    ``run_iter`` of its train loop with all hooks. Only the loop over epochs stands here, since a
    loop of MMEngine's cannot be halted between two iterations.

    Args:
        cfg: A complete config, trained by epochs.

    Raises:
        ValueError: If it is trained by iterations, or the data give no batch.
    """

    def __init__(self, cfg: Config) -> None:
        if not cfg.train_cfg.get("by_epoch", True) or "type" in cfg.train_cfg:
            raise ValueError("only configs with train_cfg=dict(by_epoch=True, ...) can be timed")
        install_safe_checkpoint_loading()
        self.batch_size: int = cfg.train_dataloader.batch_size
        self.runner: Runner = _HaltedRunner.from_cfg(cfg)
        self.runner.train()
        loader = self.runner.train_loop.dataloader
        check_size(len(loader), self.batch_size)
        self.stock = stock_of(loader)
        self._steps = self._iterate()
        self.students = len(self._members)

    @property
    def model(self) -> nn.Module:
        """The model without a wrapper for several processes."""
        return getattr(self.runner.model, "module", self.runner.model)

    def step(self) -> None:
        """Load a batch and train on it, with all hooks."""
        next(self._steps)

    def loader(self) -> Callable[[], Any]:
        """Return a function that loads one batch and preprocesses it."""
        batches = self._batches()
        return lambda: self.model.data_preprocessor(next(batches), True)

    def device(self) -> torch.device:
        """Return where the model is."""
        return next(self.model.parameters()).device

    def probes(self) -> list[Probe]:
        """Return the methods that do the parts of a step: object, name, part."""
        found: list[Probe] = [
            (self, "_fetch", "data"),
            (self.model.data_preprocessor, "forward", "data"),
        ]
        for wrapper in self._wrappers:
            found += [(wrapper, "step", "optimizer"), (wrapper, "zero_grad", "optimizer")]
        for member in self._members:
            student = getattr(member, "student", member)
            found += [(student, "extract_feat", "student"), (student.head, "forward", "student")]
        if self._members != [self.model]:  # then teachers are asked for the logits, not members
            return found + [(teacher, "compute", "teacher") for teacher in self.teachers]
        if self.teachers:
            found.append((self.model, "teacher_logits", "teacher"))
        return found

    def state(self) -> list[Any]:
        """Return what lives from step to step: modules and optimizers."""
        teachers = [teacher.model for teacher in self.teachers]
        return [self.model, *teachers, *(wrapper.optimizer for wrapper in self._wrappers)]

    @property
    def teachers(self) -> list[FrozenTeacher]:
        """The teachers, each once."""
        found = [teacher for each in self._members for teacher in getattr(each, "teachers", [])]
        return list({id(teacher): teacher for teacher in found}.values())

    def caches(self) -> list[TeacherCache]:
        """Return the caches of the teachers."""
        return [teacher.cache for teacher in self.teachers if teacher.cache is not None]

    @property
    def _members(self) -> list[Any]:
        """The models that are trained: one, or those of a group."""
        return list(getattr(self.model, "students", {"": self.model}).values())

    @property
    def _wrappers(self) -> list[Any]:
        wrapper = self.runner.optim_wrapper
        return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]

    def _iterate(self) -> Iterator[None]:
        runner, loop = self.runner, self.runner.train_loop
        runner.call_hook("before_train")
        while True:
            runner.call_hook("before_train_epoch")
            runner.model.train()
            batches = iter(loop.dataloader)
            for number in range(len(loop.dataloader)):
                loop.run_iter(number, self._fetch(batches))
                yield
            runner.call_hook("after_train_epoch")
            loop._epoch += 1

    def _fetch(self, batches: Iterator[Any]) -> Any:
        return next(batches)

    def _batches(self) -> Iterator[Any]:
        loader, epoch = self.runner.train_loop.dataloader, 0
        while True:
            if hasattr(loader.sampler, "set_epoch"):
                loader.sampler.set_epoch(epoch)
            yield from loader
            epoch += 1


def check_size(batches: int, batch_size: int) -> None:
    """Refuse data that are too few.

    Args:
        batches: How many whole ones there are.
        batch_size: Of each.

    Raises:
        ValueError: If there is none.
    """
    if batches < 1:
        raise ValueError(f"there are fewer than {batch_size} images, a batch; take a smaller one")


def stock_of(loader: DataLoader) -> int:
    """Return how many batches the workers of a loader may have ready before they are asked.

    Args:
        loader: The loader.
    """
    return loader.num_workers * (loader.prefetch_factor or 0)


class _HaltedRunner(Runner):
    """Gets everything ready for training and stops before the first epoch."""

    def build_train_loop(self, loop: Any) -> Any:
        built = super().build_train_loop(loop)
        built.run = lambda: None
        return built

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        if fn_name != "after_run":  # of train(), which comes back before anything has run
            super().call_hook(fn_name, **kwargs)

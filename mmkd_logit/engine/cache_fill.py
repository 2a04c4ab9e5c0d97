"""Fill the teacher caches of a config before training."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor
from tqdm import tqdm

from mmkd_logit.datasets.views import Views

from .config import seed_of
from .teachers import explain_missing, find_missing_teachers, teacher_specs

_IMAGES = 32  # whose views are made at a time

Pictures = tuple[Tensor, Views]


class CacheFiller:
    """The teachers of a config that have a cache on disk, and the pictures they will see.

    Everything is built as training builds it, so that the same keys come out.

    Args:
        cfg: A complete config.

    Raises:
        ValueError: If no teacher has a cache on disk, or the pictures have no numbers.
        FileNotFoundError: If a teacher is missing.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._wrapper: Any = None
        missing = find_missing_teachers(cfg)
        if missing:
            raise FileNotFoundError(explain_missing(missing))
        init_default_scope(cfg.get("default_scope") or "mmpretrain")
        torch.backends.cudnn.benchmark = bool((cfg.get("env_cfg") or {}).get("cudnn_benchmark"))
        model_cfg = cfg.model.to_dict()
        model_cfg.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
        if not teacher_specs(cfg):
            raise ValueError("this config has no teacher")
        self._distiller = MODELS.build(model_cfg).to(get_device())
        self.teachers = self._teachers()
        if not self.teachers:
            raise ValueError(
                "no teacher of this config has a cache on disk; add "
                "model.teacher.cache.storage=disk to --cfg-options, or to the config "
                "cache=dict(storage='disk') beside the teacher's checkpoint"
            )

    def _teachers(self) -> list[Any]:
        from mmkd_logit.models import FrozenTeacher

        found = []
        for spec in teacher_specs(self._cfg):
            teacher = FrozenTeacher(spec)
            if teacher.cache is not None and teacher.cache.storage == "disk":
                teacher.expect_inputs_of(self._distiller.data_preprocessor)
                found.append(teacher)
        return found

    def fill(self, pictures: Iterator[Pictures], total: int) -> int:
        """Ask every teacher for the pictures that its cache has not.

        Args:
            pictures: Batches of uint8 images and their numbers.
            total: How many images will come, for the bar.

        Returns:
            How many logits were computed.
        """
        waiting: list[list[Pictures]] = [[] for _ in self.teachers]
        computed = 0
        with tqdm(total=total, unit="picture", unit_scale=True, disable=None) as bar:
            for images, views in pictures:
                for teacher, queue in zip(self.teachers, waiting, strict=True):
                    inputs = self._normalise(images[:1])
                    chosen = np.flatnonzero(self._in_precision(teacher.lacking, inputs, views))
                    if len(chosen):
                        queue.append((images[_on(images, chosen)], select(views, chosen)))
                    computed += self._compute(teacher, queue, last=False)
                bar.update(len(views.index))
            for teacher, queue in zip(self.teachers, waiting, strict=True):
                computed += self._compute(teacher, queue, last=True)
                teacher.cache.report()  # what is under way is written
        return computed

    def _compute(self, teacher: Any, queue: list[Pictures], last: bool) -> int:
        """Compute whole micro-batches of what waits, and the rest if nothing more will come."""
        waiting = sum(len(views.index) for _, views in queue)
        size = teacher.inference.micro_batch
        count = waiting if last else waiting // size * size
        if count == 0:
            return 0
        images, views = torch.cat([part for part, _ in queue]), _join([part for _, part in queue])
        queue[:] = [(images[count:], select(views, slice(count, None)))] if count < waiting else []
        chosen = select(views, slice(count))
        self._in_precision(teacher, self._normalise(images[:count]), chosen)
        return count

    def _normalise(self, images: Tensor) -> Tensor:
        return self._distiller.data_preprocessor(dict(inputs=images))["inputs"]

    def _in_precision(self, call: Any, *args: Any) -> Any:
        with self._precision():
            return call(*args)

    def _precision(self) -> AbstractContextManager:
        """Return the context in which the training step runs: under AMP teachers follow it."""
        if self._wrapper is None:
            plain = ConfigDict(optimizer=dict(type="SGD", lr=0.1))
            settings = copy.deepcopy(self._cfg.get("optim_wrapper") or plain)
            self._wrapper = build_optim_wrapper(self._distiller, settings)
        return self._wrapper.optim_context(self._distiller)

    def drawn(self, epochs: int, seed: int | None = None) -> tuple[Iterator[Pictures], int]:
        """Give what a run sees.

        Args:
            epochs: How many epochs, from the first on.
            seed: Of the run; the config's if None.

        Returns:
            Its batches, and how many pictures they hold.

        Raises:
            ValueError: If the run's pictures have no numbers, or no seed is known.
        """
        seed = seed_of(self._cfg) if seed is None else seed
        if seed is None:
            raise ValueError("the config fixes no seed; say which run's pictures with --seed")
        loader = self._loader(seed)

        def batches() -> Iterator[Pictures]:
            for epoch in range(epochs):
                for owner in (loader.sampler, loader.batch_sampler):
                    if hasattr(owner, "set_epoch"):
                        owner.set_epoch(epoch)
                for batch in loader:
                    yield batch["inputs"], self._views(batch)

        return batches(), epochs * len(loader.sampler)

    def every(self) -> tuple[Iterator[Pictures], int]:
        """Give all views of all images that are trained on, image by image.

        Returns:
            Batches, and how many pictures they hold.

        Raises:
            ValueError: If they have no numbers.
        """
        from mmkd_logit.datasets import InMemoryDataset
        from mmkd_logit.datasets.sample_key import SampleKey

        loader = self._loader(0)
        source = dataset = loader.dataset
        while not isinstance(source, InMemoryDataset):
            source = getattr(source, "dataset", None)
            if source is None:
                raise ValueError(
                    "views are known of mmkd_logit.InMemoryDataset alone, and "
                    f"train_dataloader.dataset is a {type(dataset).__name__}"
                )
        found = []
        for start in range(0, len(dataset), 1024):
            keys = [SampleKey(0, 0, i) for i in range(start, min(start + 1024, len(dataset)))]
            views = self._views(dataset.__getitems__(keys))
            found.append(views.index)
        images = np.unique(np.concatenate(found))

        def batches() -> Iterator[Pictures]:
            for start in range(0, len(images), _IMAGES):
                index = images[start : start + _IMAGES].repeat(views.per_sample)
                view = np.tile(np.arange(views.per_sample), len(index) // views.per_sample)
                numbers = Views(views.pictures, views.samples, views.per_sample, index, view)
                yield source.show(index, view), numbers

        return batches(), len(images) * views.per_sample

    def _loader(self, seed: int) -> Any:
        loader = Runner.build_dataloader(self._cfg.train_dataloader, seed=seed)
        example = next(iter(loader))
        if not isinstance(example, dict) or not isinstance(example.get("inputs"), Tensor):
            raise ValueError(
                "the training data do not come in whole batches; use mmkd_logit.InMemoryDataset "
                "with collate_fn=dict(type='mmkd_logit.batch_collate')"
            )
        self._views(self._distiller.data_preprocessor(example, True))
        return loader

    @staticmethod
    def _views(batch: dict) -> Views:
        from mmkd_logit.models.teacher_cache import UNKEYED

        views = getattr(batch.get("data_samples"), "views", None)
        if views is None:
            raise ValueError(UNKEYED)
        return views


def select(views: Views, chosen: Any) -> Views:
    """Return some of the pictures of a batch.

    Args:
        views: Of the batch.
        chosen: An index into (N,).
    """
    index, view = views.index[chosen], views.view[chosen]
    return Views(views.pictures, views.samples, views.per_sample, index, view)


def _join(parts: list[Views]) -> Views:
    first = parts[0]
    index = np.concatenate([part.index for part in parts])
    view = np.concatenate([part.view for part in parts])
    return Views(first.pictures, first.samples, first.per_sample, index, view)


def _on(images: Tensor, chosen: np.ndarray) -> Tensor:
    return torch.from_numpy(chosen).to(images.device)

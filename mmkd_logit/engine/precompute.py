"""Teachers' caches: fill, inspect and verify."""

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor
from tqdm import tqdm

from mmkd_logit.checkpoint import install_safe_checkpoint_loading, install_safe_reading
from mmkd_logit.datasets.in_memory import Views
from mmkd_logit.utils.arguments import check_choice, check_count, check_text
from mmkd_logit.utils.cli import OneLineParser

from .cli import one_line_errors
from .config import (
    add_common_arguments,
    apply_common_arguments,
    explain_missing,
    find_missing_teachers,
    make_fast,
    read_config,
    seed_of,
    teachers_of,
)
from .launch import prepare_launch, silence_known_warnings
from .preflight import check_config

_IMAGES = 32  # whose views are made at a time

Pictures = tuple[Tensor, Views]


class CacheFiller:
    """The teachers of a config that have a cache on disk, and the pictures they will see.

    Everything is built as training builds it, so that the same keys come out.
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
        if not teachers_of(cfg):
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
        for settings in teachers_of(self._cfg).values():
            teacher = FrozenTeacher(settings)
            if teacher.cache is not None and teacher.cache.storage == "disk":
                teacher.set_input_normalization(self._distiller.data_preprocessor)
                found.append(teacher)
        return found

    def fill(self, pictures: Iterator[Pictures], total: int) -> int:
        """Ask every teacher for the pictures that its cache has not."""
        waiting: list[list[Pictures]] = [[] for _ in self.teachers]
        computed = 0
        with tqdm(total=total, unit="picture", unit_scale=True, disable=None) as bar:
            for images, views in pictures:
                for teacher, queue in zip(self.teachers, waiting, strict=True):
                    inputs = self._normalise(images[:1])
                    chosen = np.flatnonzero(self._in_precision(teacher.missing, inputs, views))
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
        size = teacher.settings.micro_batch
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
        """Give what a run sees."""
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
        """Give all views of all images that are trained on, image by image."""
        from mmkd_logit.datasets import InMemoryDataset
        from mmkd_logit.datasets.draws import SampleKey

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
    """Return some of the pictures of a batch."""
    index, view = views.index[chosen], views.view[chosen]
    return Views(views.pictures, views.samples, views.per_sample, index, view)


def _join(parts: list[Views]) -> Views:
    first = parts[0]
    index = np.concatenate([part.index for part in parts])
    view = np.concatenate([part.view for part in parts])
    return Views(first.pictures, first.samples, first.per_sample, index, view)


def _on(images: Tensor, chosen: np.ndarray) -> Tensor:
    return torch.from_numpy(chosen).to(images.device)


# ``tools/cache.py``: fill the cache of a config's teacher, look at caches, check them.


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/cache.py``."""
    parser = OneLineParser(description="The caches of teachers' logits on disk")
    commands = parser.add_subparsers(dest="command", required=True)
    fill = commands.add_parser("fill", help="compute in advance what a run will look up")
    fill.add_argument("config", help="config of a distilling run")
    fill.add_argument(
        "--views",
        choices=["all"],
        help="all views of all training images, for any number of runs (the default)",
    )
    fill.add_argument("--epochs", type=int, help="only what the first N epochs of a run draw")
    fill.add_argument("--seed", type=int, help="with --epochs, of which run; the config's if not")
    fill.add_argument("--fast", action="store_true", help="for runs with --fast")
    add_common_arguments(fill)
    for name, text in (
        ("inspect", "list the caches: for whom, how full, how large"),
        ("verify", "read all logits and compare them with their checksums"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("root", nargs="?", help="folder of the caches, or one of them")
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line of ``fill`` into the config it names."""
    if args.epochs is not None and (args.views or args.epochs < 1):
        raise ValueError("--epochs is a positive number and excludes --views")
    if args.seed is not None and args.epochs is None:
        raise ValueError("--seed goes with --epochs; all views are all views")
    if args.launcher != "none":
        raise ValueError("caches are filled by one process, or by several started apart")
    if args.amp:
        raise ValueError("say in the config how the run computes; leave out --amp")
    cfg = read_config(args.config)
    apply_common_arguments(cfg, args)
    if args.fast:
        make_fast(cfg)
    if not isinstance((cfg.get("train_dataloader") or {}).get("dataset"), dict):
        raise ValueError(f"{args.config} has no train_dataloader with a dataset")
    prepare_launch(cfg, "none")
    check_config(cfg)
    return cfg


def fill(args: argparse.Namespace) -> None:
    """Do what ``tools/cache.py fill`` says."""
    cfg = build_config(args)
    # The last one made is the one that is used; its lines would tear the bar.
    MMLogger.get_instance(f"cache{time.time_ns()}", log_level="WARNING")
    install_safe_checkpoint_loading()

    filler = CacheFiller(cfg)
    pictures = filler.every() if args.epochs is None else filler.drawn(args.epochs, args.seed)
    computed = filler.fill(*pictures)
    for teacher in filler.teachers:
        for folder in teacher.cache.folders:
            print(_describe(folder))
    print(f"{computed} logits computed, the others were there or are not kept")


def log_caches(runner: Runner) -> None:
    """Write into a run's log what its teachers' caches were good for, in this process."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    students = getattr(model, "students", None)
    holders = [model] if students is None else students.values()
    teachers = [each for holder in holders for each in getattr(holder, "teachers", None) or ()]
    for teacher in {id(each): each for each in teachers}.values():
        if getattr(teacher, "cache", None) is not None:
            said = teacher.cache.report()
            asked = max(1, said["hits"] + said["misses"])
            runner.logger.info(
                f"Teacher {teacher.name}: {said['hits'] / asked:.1%} of {asked} logits were in the "
                f"cache, which now holds {said['entries']} ({_size(said['bytes'])} when full)."
            )


def list_caches(root: str | None) -> Iterator[Path]:
    """Yield the folders of caches."""
    from mmkd_logit.models.teacher_cache import default_root

    folder = Path(root).expanduser() if root else default_root()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with teacher caches")
    if (folder / "meta.json").is_file():
        yield folder
        return
    yield from sorted(path.parent for path in folder.glob("*/meta.json"))


def _open(folder: Path) -> Any:
    from mmkd_logit.models.logit_store import META, DiskStore, read_meta

    meta = read_meta(folder / META)
    if meta is None:
        raise ValueError(f"{folder / META} cannot be read")
    for name in ("rows", "num_classes", "samples", "per_sample"):
        check_count(f"{name} of {folder / META}", meta.get(name))
    check_choice(f"dtype of {folder / META}", meta.get("dtype"), ("float32", "float16"))
    check_text(f"pictures of {folder / META}", meta.get("pictures"), "their hash")
    return DiskStore(folder, meta, meta["rows"], look=True)


def _describe(folder: Path) -> str:
    store = _open(folder)
    meta, used = store.meta, (folder / "meta.json").stat().st_mtime
    whole = store.size * (store.words + 1) * 4
    computed = meta.get("computed") or {}
    return (
        f"{folder.name}  teacher {meta.get('teacher')} {str(meta.get('weights'))[:8]}, pictures "
        f"{meta['pictures'][:8]}: {meta['samples']} x {meta['per_sample']} views x "
        f"{meta['num_classes']} {meta['dtype']}, computed in "
        f"{computed.get('precision', '?').removeprefix('torch.')}; "
        f"{store.filled() / store.size:.1%} full, {_size(store.allocated())} of {_size(whole)}, "
        f"used {time.strftime('%Y-%m-%d %H:%M', time.localtime(used))}"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _inspect(folder: Path) -> bool:
    print(_describe(folder))
    return True


def _verify(folder: Path) -> bool:
    store = _open(folder)
    damaged = store.damaged()
    print(f"{folder.name}  {store.filled() - damaged} logits fit their checksums, {damaged} do not")
    return damaged == 0


def _each(root: str | None, do: Any) -> None:
    count = 0
    damaged: list[str] = []
    for folder in list_caches(root):
        count += 1
        try:
            damaged += [] if do(folder) else [str(folder)]
        except (ValueError, OSError) as error:
            print(f"{folder.name}  {error}")
            damaged.append(f"{folder} ({error})")
    if not count:
        print("no caches")
    if damaged:
        raise ValueError(
            f"a cache is damaged: {', '.join(damaged)}; training computes again what does not fit, "
            "or remove the folder"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/cache.py``."""
    args = build_parser().parse_args(argv)
    with one_line_errors():
        silence_known_warnings()
        install_safe_reading()
        if args.command == "fill":
            fill(args)
        else:
            _each(args.root, _inspect if args.command == "inspect" else _verify)

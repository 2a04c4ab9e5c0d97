"""``tools/cache.py``: fill the cache of a config's teacher, look at caches, check them."""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmkd_logit._checks import check_choice, check_count, check_text
from mmkd_logit._command_line import OneLineParser

from .checkpoint import install_safe_checkpoint_loading
from .config import add_common_arguments, apply_common_arguments, read_config
from .config_check import check_config
from .errors import one_line_errors
from .fast import make_fast
from .launch import prepare_launch, silence_known_warnings
from .safe_reading import install_safe_reading


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
    """Merge the command line of ``fill`` into the config it names.

    Args:
        args: Parsed by :func:`build_parser`.

    Raises:
        ValueError: If a flag or the config does not fit.
        FileNotFoundError: If the config does not exist.
    """
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
    """Do what ``tools/cache.py fill`` says.

    Args:
        args: Parsed by :func:`build_parser`.

    Raises:
        ValueError: If something does not fit.
        FileNotFoundError: If the config or a teacher does not exist.
    """
    cfg = build_config(args)
    # The last one made is the one that is used; its lines would tear the bar.
    MMLogger.get_instance(f"cache{time.time_ns()}", log_level="WARNING")
    install_safe_checkpoint_loading()
    from .cache_fill import CacheFiller  # its imports warn, once we silence it

    filler = CacheFiller(cfg)
    pictures = filler.every() if args.epochs is None else filler.drawn(args.epochs, args.seed)
    computed = filler.fill(*pictures)
    for teacher in filler.teachers:
        for folder in teacher.cache.folders:
            print(_describe(folder))
    print(f"{computed} logits computed, the others were there or are not kept")


def log_caches(runner: Runner) -> None:
    """Write into a run's log what its teachers' caches were good for, in this process.

    Args:
        runner: After training.
    """
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
    """Yield the folders of caches.

    Args:
        root: Where they are, or one of them; where teachers would put theirs if None.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    from mmkd_logit.models.teacher_cache import default_root

    folder = Path(root).expanduser() if root else default_root()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with teacher caches")
    if (folder / "meta.json").is_file():
        yield folder
        return
    yield from sorted(path.parent for path in folder.glob("*/meta.json"))


def _open(folder: Path) -> Any:
    from mmkd_logit.models._disk_store import META, DiskStore, read_meta

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
    """Run ``tools/cache.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    args = build_parser().parse_args(argv)
    with one_line_errors():
        silence_known_warnings()
        install_safe_reading()
        if args.command == "fill":
            fill(args)
        else:
            _each(args.root, _inspect if args.command == "inspect" else _verify)

"""The part of ``tools/benchmark.py`` that trains a config."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmkd_logit.engine.fast import make_fast

from .base_config import base_config
from .comparisons import comparison_rows, render_comparisons
from .data_table import LOADERS, data_rows, render_data
from .scaling import render_scaling, scaling_rows
from .shared_table import render_shared, shared_rows
from .train_table import render_train, train_rows
from .variants import VARIANTS


def measure_config(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Print tables for a config and return what is in them, with all raw times.

    Args:
        args: Parsed by :func:`mmkd_logit.benchmark.command.build_parser`.
        say: Called with a line of progress.

    Raises:
        ValueError: If there is no such variant, or it cannot train this config.
    """
    names = args.variants or list(LOADERS if args.data else VARIANTS)
    if args.scaling:
        names = args.variants or ["memory"]
        if len(names) > 1 or names[0].startswith("bare"):
            raise ValueError("--scaling takes one variant, and none of the bare ones")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"there is no variant {unknown[0]!r}, only {', '.join(VARIANTS)}")
    device = torch.device(get_device())
    if args.data and args.threads is None:
        torch.set_num_threads(1)
    settings = dict(
        path=args.config,
        overrides=args.cfg_options,
        batch_size=args.batch_size,
        synthetic=args.synthetic,
    )
    workers = default_workers(device) if args.workers is None else args.workers
    found: dict[str, Any]
    with tempfile.TemporaryDirectory() as folder:
        cfg, notes = base_config(work_dir=folder, **settings)
        notes.append(_circumstances(cfg, device, workers))
        if args.data:
            loading = data_rows(cfg, device, workers, args.seconds, names, say)
            found, text = dict(loading=loading), render_data(loading)
        elif args.shared:
            edit = make_fast if args.shared == "fast" else (lambda cfg: None)
            shared, ratios = shared_rows(cfg, device, args.seconds, edit, say)
            found = dict(shared=shared, shared_ratios=ratios, mode=args.shared)
            text = render_shared(shared, ratios)
        elif args.scaling:
            found, text = _scaling(args, settings, names[0], workers, cfg, say)
        else:
            found, text = _training(args, names, cfg, device, workers, say)
    print("\n".join(f"{note}  " for note in notes), text, sep="\n\n", flush=True)
    return dict(config=args.config, notes=notes, **found)


def _training(
    args: argparse.Namespace,
    names: Sequence[str],
    cfg: Config,
    device: torch.device,
    workers: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], str]:
    rows = train_rows(cfg, names, device, workers, args.seconds, not args.no_parts, say)
    ratios = comparison_rows(rows, device.type)
    text = render_train(rows)
    if ratios:
        text += f"\n\n{render_comparisons(ratios)}"
    return dict(training=rows, ratios=ratios), text


def _scaling(
    args: argparse.Namespace,
    settings: dict[str, Any],
    variant: str,
    workers: int,
    cfg: Config,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], str]:
    size = cfg.train_dataloader.batch_size
    rows = scaling_rows(
        settings, variant, workers, size, args.scaling, args.seconds, args.threads or 1, say=say
    )
    kept = "the batch of all together" if args.scaling == "total" else "the batch of each process"
    text = f"{variant}, {args.threads or 1} threads a process; {kept} is kept"
    return dict(scaling=rows), f"{text}\n\n{render_scaling(rows)}"


def default_workers(device: torch.device) -> int:
    """Return how many data workers the pipelines get that work image by image.

    None on a CPU, where they would only take its cores from the training; on a GPU as many as
    there are cores to spare, up to 8.

    Args:
        device: Where to train.
    """
    return 0 if device.type == "cpu" else min(max((os.cpu_count() or 1) - 1, 0), 8)


def _circumstances(cfg: Config, device: torch.device, workers: int) -> str:
    return (
        f"{device.type}, batches of {cfg.train_dataloader.batch_size}, {workers} data workers "
        f"for bare and plain, {torch.get_num_threads()} threads of torch"
    )

"""Compute a teacher's logits before the runs that look them up."""

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MessageHub, print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmkd_logit.checkpoint import install_safe_checkpoint_loading
from mmkd_logit.hooks.networks import trained_networks
from mmkd_logit.utils.cli import OneLineParser

from .check import check_config
from .config import (
    add_common_arguments,
    add_recipe_arguments,
    apply_common_arguments,
    apply_recipe_arguments,
    explain_missing,
    find_missing_teachers,
    read_training_config,
    seed_of,
    teachers_of,
)
from .launch import prepare_launch, running_tool
from .runner import configure_cublas


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/precompute.py``."""
    parser = OneLineParser(
        description="Store the teacher's logits of the views that a run draws in its cache on disk"
    )
    parser.add_argument("config", help="config of a distilling run")
    add_common_arguments(parser)
    add_recipe_arguments(parser)
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line into the config that it names, as training does."""
    if args.launcher != "none":
        raise ValueError("one process computes the logits of a run; leave out --launcher")
    cfg = read_training_config(args)
    apply_common_arguments(cfg, args)
    if seed_of(cfg) is None:
        raise ValueError(f"{args.config} has no seed, which decides the views; set --seed")
    if not cfg.train_cfg.get("max_epochs"):
        raise ValueError(f"{args.config} must train by epochs (train_cfg.max_epochs)")
    apply_recipe_arguments(cfg, args)
    prepare_launch(cfg, "none")
    check_config(cfg)
    return cfg


def precompute(cfg: Config) -> str:
    """Ask the teachers for the logits of every view that a run draws; return what was computed.

    Network, data and precision are built as training builds them, so that the same cache is filled.
    """
    from mmkd_logit.models import FrozenTeacher

    missing = find_missing_teachers(cfg)
    if missing:
        raise FileNotFoundError(explain_missing(missing))
    init_default_scope(cfg.get("default_scope") or "mmpretrain")
    torch.backends.cudnn.benchmark = bool((cfg.get("env_cfg") or {}).get("cudnn_benchmark"))
    deterministic = bool(cfg.randomness.get("deterministic"))
    configure_cublas(deterministic)
    set_random_seed(seed_of(cfg), deterministic=deterministic)
    teachers = [FrozenTeacher(teacher) for teacher in teachers_of(cfg).values()]
    caches = {t: t.cache for t in teachers if t.cache is not None and t.cache.storage == "disk"}
    if not caches:
        raise ValueError(
            "no teacher of this config has a cache on disk; add "
            "model.teacher.cache.storage=disk to --cfg-options, or to the config "
            "cache=dict(storage='disk') beside the teacher's checkpoint"
        )
    model_cfg = cfg.model.to_dict()
    model_cfg.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
    model = MODELS.build(model_cfg).to(get_device())
    for teacher in caches:
        teacher.set_input_normalization(model.data_preprocessor)
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed_of(cfg))
    epochs = cfg.train_cfg.max_epochs
    MessageHub.get_current_instance().update_info("max_epochs", epochs)  # as a Runner does
    for epoch in range(epochs):
        for sampler in (loader.sampler, loader.batch_sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        for batch in loader:
            batch = model.data_preprocessor(batch, True)
            views = getattr(batch["data_samples"], "views", None)
            with wrapper.optim_context(model):  # under AMP, teachers compute in its precision
                for teacher, cache in caches.items():
                    teacher(batch["inputs"], views)
                    _check_writable(teacher.name, cache.stores)
        computed = sum(cache.misses for cache in caches.values())
        found = sum(cache.hits for cache in caches.values())
        done = f"{computed} logits computed, {found} were there"
        print_log(f"Epoch {epoch + 1} of {epochs}: {done}", "current")
    for teacher, cache in caches.items():
        for store in cache.stores:
            store.sync()
        _check_writable(teacher.name, cache.stores)
        cache.forget()
    return done


def _check_writable(name: str, stores: Sequence[Any]) -> None:
    if not stores or not all(store.writable for store in stores):
        raise ValueError(
            f"the cache of teacher {name} keeps no more logits; the warning above says why"
        )


def log_caches(runner: Runner) -> None:
    """Log how often the caches of a run's teachers were hit, in this process."""
    networks = trained_networks(runner).values()
    found = [teacher for each in networks for teacher in getattr(each, "teachers", None) or ()]
    for teacher in dict.fromkeys(found):  # students of a group share theirs
        if teacher.cache is not None:
            report = teacher.cache.report()
            asked = report["hits"] + report["misses"]
            runner.logger.info(
                f"Teacher {teacher.name}: {report['hits'] / max(1, asked):.1%} of {asked} logits "
                f"were in the cache, which now holds {report['entries']}."
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/precompute.py``."""
    args = build_parser().parse_args(argv)
    with running_tool():
        cfg = build_config(args)
        install_safe_checkpoint_loading()  # after the config's custom_imports
        print(precompute(cfg))

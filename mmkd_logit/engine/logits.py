"""Exporting the logits of a run or a checkpoint, a file a split."""

import argparse
import copy
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, LoggerHook
from mmengine.runner import CheckpointLoader, Runner, TestLoop

from mmkd_logit.checkpoint import existing, install_safe_checkpoint_loading, load_exactly
from mmkd_logit.hooks import LogitOutputsHook
from mmkd_logit.hooks.networks import last_linear, unwrapped
from mmkd_logit.hooks.sequential_teacher import use_last_stage
from mmkd_logit.utils.arguments import check_out_folder
from mmkd_logit.utils.cli import OneLineParser

from .check import check_config
from .config import (
    FINAL,
    add_common_arguments,
    add_recipe_arguments,
    apply_common_arguments,
    apply_recipe_arguments,
    read_config,
    write_final,
)
from .fingerprint import (
    dataset_hash,
    describe_machine,
    describe_run,
    describe_test,
    fingerprint,
    fingerprint_of,
    read_run,
    row_fingerprint,
    same_test,
    weights_hash,
)
from .launch import from_first_process, prepare_launch, running_tool
from .results import describe_method, plain, training_data_loader, without_hooks
from .runner import QuietRunner

FORMAT = 1
FOLDER = "logits"  # in a work folder
SPLITS = ("train", "val", "test")
USUAL_SPLITS = ("train", "test")  # where none is named
# What decides the arrays; the rest of an identity is their provenance.
_CONTENT = ("format", "fingerprint", "weights", "split", "data")


class _Splits(argparse.Action):
    """Without names, the usual splits."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, list(dict.fromkeys(values)) or list(USUAL_SPLITS))


def add_export_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--dump-logits``, which gives a list of splits, or None."""
    parser.add_argument(
        "--dump-logits",
        nargs="*",
        action=_Splits,
        choices=SPLITS,
        metavar="SPLIT",
        help="in the end write the logits of every sample to WORK_DIR/logits/SPLIT.npz, for "
        "figures: of train (un-augmented), val, test; default: train test",
    )


# Which files there are, and whether they are current.


def export_path(work_dir: str | Path, split: str) -> Path:
    """Return where a run keeps the logits of a split."""
    return Path(work_dir, FOLDER, f"{split}.npz")


def read_identity(path: str | Path) -> dict[str, Any] | None:
    """Return the identity of an export; None where there is none, or the file is damaged."""
    try:
        # NumPy would not close a file of its own that is cut off.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            identity = json.loads(str(file["identity"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return identity if isinstance(identity, dict) else None


def _is_current(path: str | Path, identity: Mapping[str, Any]) -> bool:
    """Whether a file holds the same arrays; commit and versions are not compared."""
    found = read_identity(path) or {}
    same = all(found.get(key) == identity[key] for key in _CONTENT if key in identity)
    return same and same_test(found, identity["tested"])


def missing_exports(cfg: Config, splits: Iterable[str]) -> list[str]:
    """Return the splits whose logits a finished run has not, or only those of other weights.

    The data set is not read: :func:`export_logits` compares its samples.
    """
    splits = list(splits)
    if not splits:
        return []
    weights = weights_hash(Path(cfg.work_dir, FINAL))
    identity = dict(format=FORMAT, fingerprint=fingerprint_of(cfg, processes=1), weights=weights)
    paths = {split: export_path(cfg.work_dir, split) for split in splits}
    return [
        split
        for split, path in paths.items()
        if not _is_current(path, dict(identity, split=split, tested=_describe_reading(cfg, split)))
    ]


def find_exports(work_dir: str | Path, weights: str | None = None) -> dict[str, str]:
    """Find the exports in a run's folder, by split."""
    paths = sorted(Path(work_dir, FOLDER).glob("*.npz"))
    if weights is not None:
        paths = [path for path in paths if (read_identity(path) or {}).get("weights") == weights]
    return {path.stem: str(path) for path in paths}


# Exporting with a run's Runner.


def prepare_export(cfg: Config, splits: Sequence[str]) -> None:
    """Make sure that a run can export its logits when it has ended."""
    for split in splits:
        loader_of(cfg, split)
    write_final(cfg)


def loader_of(cfg: Config, split: str) -> dict[str, Any]:
    """Return the config of a loader that gives each sample of a split once, un-augmented."""
    train = ["train_dataloader"] if split == "train" else []
    of_split = "test_dataloader" if split == "train" else f"{split}_dataloader"
    for name in (*train, of_split):
        if not isinstance((cfg.get(name) or {}).get("dataset"), dict):
            raise ValueError(
                f"logits of the {split} split need {name} with a dataset in the config"
            )
    loader = training_data_loader(cfg) if train else copy.deepcopy(cfg[of_split].to_dict())
    loader.update(sampler=dict(type="DefaultSampler", shuffle=False), drop_last=False)
    return loader


def _describe_reading(cfg: Config, split: str) -> dict[str, Any]:
    loader = loader_of(cfg, split)
    return describe_test(Config(dict(test_dataloader=loader, test_cfg=cfg.get("test_cfg"))))


def export_logits(
    runner: Runner,
    splits: Sequence[str],
    folder: str | Path,
    checkpoint: str,
    config: str,
    origin: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> list[str]:
    """Write the files that are not there yet, of these weights and this data."""
    from mmkd_logit.metrics import LogitDump

    cfg = runner.cfg
    weights = weights_hash(checkpoint) or checkpoint
    fp16 = bool((cfg.get("test_cfg") or {}).get("fp16"))
    # Weights give the same logits however many processes trained them.
    content = dict(origin["computed"], processes=1)
    made_by = dict(
        format=FORMAT,
        config=config,
        fingerprint=fingerprint(content),
        seed=origin["seed"],
        teachers=origin["teachers"],
        weights=weights,
        method=describe_method(cfg),
        **machine,
    )
    written: list[str] = []
    # All logits, no metrics logged again, and no hook that exchanges the weights.
    others, watching = (LogitOutputsHook, LoggerHook, EMAHook), LogitOutputsHook(prelogits="all")
    with without_hooks(runner, *others, and_with=[watching]):
        for split in splits:
            loader = loader_of(cfg, split)
            loop = TestLoop(runner, dataloader=loader, evaluator=Evaluator([]), fp16=fp16)
            dataset = loop.dataloader.dataset
            about = dict(data=dataset_hash(dataset), tested=_describe_reading(cfg, split))
            identity = plain(dict(made_by, split=split, **about))
            path = Path(folder, f"{split}.npz")
            if from_first_process(lambda: _is_current(path, identity)):  # noqa: B023
                continue
            if is_main_process():
                for left in path.parent.glob(f".{path.name}.*.part"):  # of a killed process
                    shutil.rmtree(left, ignore_errors=True)
            barrier()  # before the other processes make theirs
            if not written:
                content = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
                load_exactly(unwrapped(runner), content, checkpoint)
            runner.logger.info(f"Writing the logits of {len(dataset)} samples ({split}) to {path}")
            export = LogitDump(path, identity, layers=lambda: _layers(unwrapped(runner)))
            loop.evaluator = Evaluator([export])
            loop.evaluator.dataset_meta = getattr(dataset, "metainfo", None)
            runner._test_loop = loop
            loop.run()
            written.append(split)
    return written


def _layers(network: Any) -> dict[str, np.ndarray]:
    """Return the last linear layer of a student and of its one teacher."""
    networks = {"": network}
    teachers = getattr(network, "teachers", None) or []
    if len(teachers) == 1 and network.needs_teacher:
        networks["teacher_"] = teachers[0].model
    layers = {prefix: last_linear(each) for prefix, each in networks.items()}
    found = {p + n: getattr(layers[p], n, None) for p in layers for n in ("weight", "bias")}
    return {n: v.detach().float().cpu().numpy() for n, v in found.items() if v is not None}


def export_run(
    runner: Runner,
    args: argparse.Namespace,
    origin: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> None:
    """Export the splits of ``--dump-logits``, if given, with the weights of ``final.pth``."""
    if args.dump_logits is not None:
        final, folder = Path(runner.work_dir, FINAL), Path(runner.work_dir, FOLDER)
        export_logits(runner, args.dump_logits, folder, str(final), args.config, origin, machine)


def export_checkpoint(
    cfg: Config, config: str, checkpoint: str, splits: Sequence[str], folder: str | Path
) -> list[str]:
    """Export the logits of a checkpoint without training."""
    install_safe_checkpoint_loading()  # after the config's custom_imports
    origin = describe_run(cfg)
    runner = QuietRunner.from_cfg(cfg)
    use_last_stage(runner)
    machine = describe_machine()
    runner.call_hook("before_run")
    written = export_logits(runner, splits, folder, checkpoint, config, origin, machine)
    runner.call_hook("after_run")
    return written


# tools/dump_logits.py.


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/dump_logits.py``."""
    parser = OneLineParser(
        description="Write the logits of every sample, student's and teacher's, for figures; "
        "give the flags that the run was trained with"
    )
    parser.add_argument("config", help="config file, or mmpretrain::PATH")
    parser.add_argument("checkpoint", help="checkpoint file or URL, such as a run's final.pth")
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=SPLITS,
        metavar="SPLIT",
        default=list(USUAL_SPLITS),
        help="of train (un-augmented), val and test; default: train test",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="for SPLIT.npz; default: logits in the run's folder"
    )
    add_common_arguments(parser)
    add_recipe_arguments(parser)
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line into the config it names."""
    if args.amp:
        raise ValueError("logits are computed as the config tests; leave out --amp")
    checkpoint = None if "://" in args.checkpoint else existing(args.checkpoint)
    cfg = read_config(args.config)
    noted = (checkpoint and read_run(checkpoint.parent)) or {}
    seed = noted.get("seed") if args.seed is None else args.seed
    if seed is not None:
        cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)
    if args.work_dir is None and checkpoint and noted:
        args.work_dir = str(checkpoint.parent)
    apply_common_arguments(cfg, args)
    apply_recipe_arguments(cfg, args)
    for split in args.splits:
        loader_of(cfg, split)
    prepare_launch(cfg, args.launcher)
    check_config(cfg)
    same = not noted or row_fingerprint(noted) == fingerprint_of(cfg, noted.get("processes"))
    if not same and is_main_process():
        print(
            f"note: {args.checkpoint} was trained by another config than {args.config} with these "
            "flags; the files will say that they are of this one",
            flush=True,
        )
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/dump_logits.py``."""
    args = build_parser().parse_args(argv)
    with running_tool():
        cfg = build_config(args)
        folder = Path(args.out or Path(cfg.work_dir, FOLDER))
        check_out_folder("--out", folder)
        written = export_checkpoint(cfg, args.config, args.checkpoint, args.splits, folder)
        for split in args.splits if is_main_process() else ():
            state = "" if split in written else " (there before)"
            print(f"{folder / split}.npz{state}", flush=True)

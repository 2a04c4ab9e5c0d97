"""The command line of ``tools/train.py``, and the config that comes of it."""

import argparse

from mmengine.config import Config

from mmkd_logit._command_line import OneLineParser

from .config import add_common_arguments, apply_common_arguments, read_config, use_amp
from .dump_files import add_dump_argument
from .dump_run import prepare_dumps
from .epochs import scale_epochs
from .fast import make_fast
from .launch import prepare_launch
from .train_metrics import training_data_loader


def build_parser(place: str | None = None) -> argparse.ArgumentParser:
    """Return the command line of ``tools/train.py``: mmpretrain's flags and a few of ours.

    Args:
        place: Where the words are written, for messages; None for a command line.
    """
    text = "Train a model, plain or from a teacher's logits"
    parser = OneLineParser(description=text, place=place)
    parser.add_argument("config", help="config file of a run or of a chain, or mmpretrain::PATH")
    add_common_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="continue from this checkpoint, or from the latest in the work folder",
    )
    parser.add_argument(
        "--resume-changed",
        action="store_true",
        help="with --resume: go on also where config, data, labels or teacher have changed",
    )
    parser.add_argument("--no-validate", action="store_true", help="do not evaluate while training")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the actual batch size, as the config's auto_scale_lr says",
    )
    parser.add_argument(
        "--no-persistent-workers", action="store_true", help="start data workers anew every epoch"
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="train in bfloat16, channels last, on CPU or GPU; results rows say so, and teachers "
        "that are trained first are trained exactly",
    )
    parser.add_argument("--seed", type=int, help="random seed, randomness.seed of the config")
    parser.add_argument(
        "--epochs", type=int, help="train N epochs, with the config's schedule in proportion"
    )
    parser.add_argument(
        "--train-teacher",
        action="store_true",
        help="where a teacher's checkpoint is missing, train the teacher first",
    )
    parser.add_argument(
        "--results",
        metavar="FILE",
        help="after training test the final weights and append one JSON line to FILE",
    )
    parser.add_argument(
        "--train-metrics",
        action="store_true",
        help="with --results, also measure on the un-augmented training images",
    )
    add_dump_argument(parser)
    return parser


def build_config(args: argparse.Namespace, cfg: Config | None = None) -> Config:
    """Merge the command line into the config it names.

    Args:
        args: Parsed by :func:`build_parser`.
        cfg: What ``args.config`` holds, if it was read already; changed in place.

    Raises:
        ValueError: If a flag does not fit the config or the machine.
        FileNotFoundError: If the config does not exist.
    """
    cfg = read_config(args.config) if cfg is None else cfg
    if cfg.get("train_cfg") is None or cfg.get("train_dataloader") is None:
        raise ValueError(f"{args.config} has no train_cfg or train_dataloader to train with")
    if args.seed is not None:
        cfg.randomness = dict(cfg.get("randomness") or {}, seed=args.seed)
    apply_common_arguments(cfg, args)
    if cfg.get("resume"):  # the same as by the flag: where a run goes on is no part of it
        args.resume = args.resume or cfg.get("load_from") or "auto"
        cfg.resume, cfg.load_from = False, None
    if args.epochs is not None:
        scale_epochs(cfg, args.epochs)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume_changed and args.resume is None:
        raise ValueError("--resume-changed goes with --resume")
    if args.amp and args.fast:
        raise ValueError("--fast and --amp both choose the precision; give one of them")
    if args.amp:
        use_amp(cfg)
    if args.fast:
        make_fast(cfg)
    if args.train_metrics:
        if args.results is None:
            raise ValueError("--train-metrics goes with --results")
        if cfg.get("test_dataloader") is not None:
            training_data_loader(cfg)  # for its checks
    if args.dump_logits is not None:
        prepare_dumps(cfg, args.dump_logits)
    if args.auto_scale_lr:
        if not cfg.get("auto_scale_lr"):
            raise ValueError(
                f"--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {args.config}"
            )
        cfg.auto_scale_lr.enable = True
    if args.no_persistent_workers:
        cfg.train_dataloader.persistent_workers = False
    prepare_launch(cfg, args.launcher)
    return cfg

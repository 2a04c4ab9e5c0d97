"""``tools/train.py``: train a plain or a distilling config."""

import argparse
import gc
import sys
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .checkpoint import install_safe_checkpoint_loading
from .config import add_common_arguments, apply_common_arguments, read_config, use_amp
from .errors import TrainingStarted, one_line_errors
from .launch import prepare_launch, silence_known_warnings
from .results import ResultsRecorder
from .teachers import MissingTeacher, explain_missing, find_missing_teachers


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/train.py``: mmpretrain's flags and a few of ours."""
    parser = argparse.ArgumentParser(description="Train a model, plain or from a teacher's logits")
    parser.add_argument("config", help="config file, or mmpretrain::PATH")
    add_common_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="continue from this checkpoint, or from the latest in the work folder",
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
    parser.add_argument("--seed", type=int, help="random seed, randomness.seed of the config")
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
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line into the config it names.

    Args:
        args: Parsed by :func:`build_parser`.

    Raises:
        ValueError: If a flag does not fit the config or the machine.
        FileNotFoundError: If the config does not exist.
    """
    cfg = read_config(args.config)
    if cfg.get("train_cfg") is None or cfg.get("train_dataloader") is None:
        raise ValueError(f"{args.config} has no train_cfg or train_dataloader to train with")
    if args.seed is not None:
        cfg.setdefault("randomness", {})["seed"] = args.seed
    apply_common_arguments(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        use_amp(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
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


class _MarkStart(Hook):
    priority = "VERY_HIGH"

    def __init__(self, started: TrainingStarted) -> None:
        self.started = started

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.started.value = True


def run_training(cfg: Config, started: TrainingStarted) -> Runner:
    """Build a Runner and train.

    Args:
        cfg: A complete config.
        started: Set once the first iteration begins.

    Returns:
        The Runner, trained.
    """
    hooks = list(cfg.get("custom_hooks") or [])
    if not any(hook.get("type") == "mmkd_logit.ProgressBarHook" for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type="mmkd_logit.ProgressBarHook")]
    runner = Runner.from_cfg(cfg)
    runner.register_hook(_MarkStart(started))
    runner.train()
    return runner


def _train_teacher(teacher: MissingTeacher, args: argparse.Namespace) -> None:
    words = [*teacher.arguments, "--resume", "--launcher", args.launcher]
    words += ["--amp"] * args.amp + ["--no-pin-memory"] * args.no_pin_memory
    print(f"training the teacher first: {teacher.command}", flush=True)
    started = TrainingStarted()
    with one_line_errors(started):
        teacher_args = build_parser().parse_args(words)
        cfg = build_config(teacher_args)
        missing = find_missing_teachers(cfg)
        if missing:
            raise ValueError(explain_missing(missing))
        run_training(cfg, started)
    gc.collect()


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/train.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    args = build_parser().parse_args(argv)
    started = TrainingStarted()
    with one_line_errors(started):
        silence_known_warnings()
        install_safe_checkpoint_loading()
        cfg = build_config(args)
        missing = find_missing_teachers(cfg)
        trainable = all(teacher.can_be_trained() for teacher in missing)
        if missing and not (args.train_teacher and trainable):
            raise ValueError(explain_missing(missing))
        recorder = ResultsRecorder(args.results, cfg, sys.argv[1:] if argv is None else argv)
        for teacher in missing:
            _train_teacher(teacher, args)
        runner = run_training(cfg, started)
        recorder.record(runner, args)

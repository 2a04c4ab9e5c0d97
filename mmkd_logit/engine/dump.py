"""``tools/dump_logits.py``: the logits of every sample, to files that figures are drawn from."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmkd_logit._checks import check_out_folder
from mmkd_logit._command_line import OneLineParser

from ._quiet_runner import QuietRunner
from .checkpoint import existing, install_safe_checkpoint_loading
from .config import add_common_arguments, apply_common_arguments, read_config
from .config_check import check_config
from .dump_files import FOLDER, SPLITS, USUAL_SPLITS
from .dump_run import dump_logits, loader_of, network_of
from .epochs import scale_epochs
from .errors import one_line_errors
from .fast import make_fast
from .fingerprint import fingerprint_of, row_fingerprint
from .launch import prepare_launch, silence_known_warnings
from .provenance import describe_machine, origin_of, read_origin
from .safe_reading import install_safe_reading


def dump_checkpoint(
    cfg: Config, config: str, checkpoint: str, splits: Sequence[str], folder: str | Path
) -> list[str]:
    """Dump the logits of a checkpoint without training.

    Args:
        cfg: A complete config, without ``resume``.
        config: Its file.
        checkpoint: The weights' path or URL.
        splits: Those wanted.
        folder: For ``SPLIT.npz``.

    Returns:
        As of :func:`dump_logits`.

    Raises:
        ValueError: As of :func:`dump_logits`.
        OSError: As of :func:`dump_logits`; also if a teacher is missing.
    """
    install_safe_checkpoint_loading()  # after the config's custom_imports
    origin = origin_of(cfg)
    runner = QuietRunner.from_cfg(cfg)
    _finish_stages(runner)
    machine = describe_machine()
    runner.call_hook("before_run")
    written = dump_logits(runner, splits, folder, checkpoint, config, origin, machine)
    runner.call_hook("after_run")
    return written


def _finish_stages(runner: Runner) -> None:
    """Give a distiller the teacher that it had in the end."""
    from mmkd_logit.hooks import SequentialTeacherHook
    from mmkd_logit.hooks._stages import merge_changes

    for hook in runner.hooks:
        if isinstance(hook, SequentialTeacherHook):
            network_of(runner).switch(**merge_changes(hook.stages))


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
    parser.add_argument("--seed", type=int, help="default: the one that trained the checkpoint")
    parser.add_argument("--epochs", type=int, help="as in training")
    parser.add_argument("--fast", action="store_true", help="as in training")
    add_common_arguments(parser)
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line into the config it names.

    Args:
        args: Parsed by :func:`build_parser`.

    Returns:
        The config; its ``work_dir`` is by default the run's that made the checkpoint.

    Raises:
        ValueError: If a flag or the config does not fit.
        FileNotFoundError: If the config or the checkpoint does not exist.
    """
    if args.amp:
        raise ValueError("logits are computed as the config tests; leave out --amp")
    checkpoint = None if "://" in args.checkpoint else existing(args.checkpoint)
    cfg = read_config(args.config)
    noted = (checkpoint and read_origin(checkpoint.parent)) or {}
    seed = noted.get("seed") if args.seed is None else args.seed
    if seed is not None:
        cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)
    if args.work_dir is None and checkpoint and noted:
        args.work_dir = str(checkpoint.parent)
    apply_common_arguments(cfg, args)
    if args.epochs is not None:
        scale_epochs(cfg, args.epochs)
    if args.fast:
        make_fast(cfg)
    for split in args.splits:
        loader_of(cfg, split)
    prepare_launch(cfg, args.launcher)
    check_config(cfg)
    if (
        noted
        and row_fingerprint(noted) != fingerprint_of(cfg, noted.get("processes"))
        and is_main_process()
    ):
        print(
            f"note: {args.checkpoint} was trained by another config than {args.config} with these "
            "flags; the files will say that they are of this one",
            flush=True,
        )
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/dump_logits.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    args = build_parser().parse_args(argv)
    with one_line_errors():
        silence_known_warnings()
        install_safe_reading()
        cfg = build_config(args)
        folder = Path(args.out or Path(cfg.work_dir, FOLDER))
        check_out_folder("--out", folder)
        written = dump_checkpoint(cfg, args.config, args.checkpoint, args.splits, folder)
        for split in args.splits if is_main_process() else ():
            state = "" if split in written else " (there before)"
            print(f"{folder / split}.npz{state}", flush=True)

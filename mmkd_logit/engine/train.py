"""``tools/train.py``: train a plain or a distilling config."""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ._loader_workers import end_workers
from .chain import check_build, is_chain
from .chain_run import run_chain, start_processes
from .config_check import check_config
from .dump import dump_checkpoint
from .dump_files import FOLDER, lacking_dumps
from .dump_run import dump_run
from .errors import TrainingStarted, one_line_errors, resume_command
from .figures_hook import OF_DUMPS, show_figures
from .launch import silence_known_warnings
from .provenance import is_origin
from .results import ResultsRecorder
from .run_lock import only_run_in
from .safe_reading import install_safe_reading
from .teachers import FINAL, MissingTeacher, explain_missing, find_missing_teachers
from .train_config import build_config, build_parser
from .training import run_training


def _train_teacher(
    teacher: MissingTeacher, args: argparse.Namespace, outer: TrainingStarted
) -> None:
    words = [*teacher.arguments, "--launcher", args.launcher]
    if "data_root" in args.cfg_options:
        words += ["--cfg-options", f"data_root={args.cfg_options['data_root']}"]
    words += ["--amp"] * args.amp + ["--no-pin-memory"] * args.no_pin_memory
    print(f"training the teacher first: {teacher.command}", flush=True)
    started = TrainingStarted(outer.again)
    with one_line_errors(started):
        teacher_args = build_parser().parse_args(words)
        cfg = build_config(teacher_args)
        missing = find_missing_teachers(cfg)
        if missing:
            raise ValueError(explain_missing(missing))
        start_processes(cfg)
        with only_run_in(cfg.work_dir):
            cut_off = is_origin(cfg)  # then it goes on
            run_training(cfg, "auto" if cut_off else None, started)
    gc.collect()


def _train(
    args: argparse.Namespace, cfg: Config, argv: Sequence[str], started: TrainingStarted
) -> None:
    """Train one config, its missing teachers first if wanted, and record the results."""
    check_config(cfg)
    missing = find_missing_teachers(cfg)
    trainable = all(teacher.can_be_trained() for teacher in missing)
    if missing and not (args.train_teacher and trainable):
        raise ValueError(explain_missing(missing))
    recorder = ResultsRecorder(args.results, cfg, argv)
    if missing:
        check_build(cfg, args.config)  # rather than when the teachers have been trained
    start_processes(cfg)
    with only_run_in(cfg.work_dir):
        for teacher in missing:
            _train_teacher(teacher, args, started)
        recorder.start(cfg)
        changed = args.resume_changed
        runner = run_training(cfg, args.resume, started, resume_changed=changed)
        recorder.record(runner, args, started)
        if dump_run(runner, args, recorder.origin, recorder.machine):
            show_figures(runner, OF_DUMPS)
        end_workers(runner)


def _train_chain(args: argparse.Namespace, argv: Sequence[str], started: TrainingStarted) -> None:
    def build(stage_args: argparse.Namespace) -> Config:
        cfg = build_config(stage_args)
        check_config(cfg)
        ResultsRecorder(stage_args.results, cfg, argv)  # for its checks
        return cfg

    def run(stage_args: argparse.Namespace, cfg: Config) -> None:
        started.value, started.iteration = False, None
        _train(stage_args, cfg, argv, started)

    run_chain(args, build, run, _dump_finished)


def _dump_finished(args: argparse.Namespace, cfg: Config) -> None:
    """Dump what a finished run lacks."""
    splits = lacking_dumps(cfg, args.dump_logits or ())
    if splits:
        final, folder = Path(cfg.work_dir, FINAL), Path(cfg.work_dir, FOLDER)
        dump_checkpoint(cfg, args.config, str(final), splits, folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/train.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    started = TrainingStarted(resume_command("train.py", argv))
    with one_line_errors(started):
        silence_known_warnings()
        install_safe_reading()
        if is_chain(args.config):
            started.again = resume_command("train.py", argv, flag=False)
            _train_chain(args, argv, started)
        else:
            _train(args, build_config(args), argv, started)

"""Training one config."""

import argparse
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit.checkpoint import install_safe_checkpoint_loading, install_safe_reading
from mmkd_logit.utils.arguments import type_name
from mmkd_logit.utils.cli import OneLineParser

from .chain import check_build, is_chain, run_chain, start_processes
from .cli import TrainingStarted, one_line_errors, resume_command
from .config import (
    FINAL,
    MissingTeacher,
    add_common_arguments,
    apply_common_arguments,
    explain_missing,
    find_missing_teachers,
    make_fast,
    read_config,
    scale_epochs,
    use_amp,
)
from .config_check import check_config
from .fingerprint import describe_run, should_resume
from .launch import prepare_launch, silence_known_warnings
from .lock import only_run_in
from .logits import (
    FOLDER,
    add_dump_argument,
    dump_checkpoint,
    dump_run,
    lacking_dumps,
    prepare_dumps,
)
from .precompute import log_caches
from .preemption import PreemptionHook
from .results import ResultsRecorder, training_data_loader
from .resume import FingerprintHook, allow_other_labels, find_checkpoint, record_start
from .runner import ResumableRunner, end_workers, make_resumable


def build_parser(place: str | None = None) -> argparse.ArgumentParser:
    """Return the command line of ``tools/train.py``: mmpretrain's flags and a few of ours."""
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
    """Merge the command line into the config it names."""
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


# A config's run, from its start or from a checkpoint, to its end.


def apply_resume(cfg: Config, resume: str | None) -> None:
    """Make a run continue; it starts from the beginning if there is nothing to continue."""
    if resume == "auto":
        found: list[Any] = [None, []]
        if is_main_process():
            found = [*find_checkpoint(cfg.work_dir)]
        broadcast_object_list(found)  # a disk may show another process something else
        last, problems = found
        if is_main_process() and problems:
            text = f"{'; '.join(problems)}; going on from {last}"
            if last is None:
                text = f"no checkpoint of {cfg.work_dir} is whole ({'; '.join(problems)}); "
                text += "starting from the beginning"
            print(f"warning: {text}", file=sys.stderr, flush=True)
        elif is_main_process() and last is None:
            text = f"there is nothing to resume in {cfg.work_dir}; starting from the beginning"
            print(text, flush=True)
        resume = None if last is None else str(last)
    if resume is not None:
        cfg.resume, cfg.load_from = True, resume


_ALWAYS = (
    "mmkd_logit.ProgressBarHook",
    "mmkd_logit.LabelNoiseHook",
    "mmkd_logit.ResumeStateHook",
    "mmkd_logit.SyncBuffersBeforeEvalHook",
    "mmkd_logit.PreflightHook",
    "mmkd_logit.FiniteLossHook",
)
_MMENGINES = "CheckpointHook"


class _MarkStart(Hook):
    """Notes that training has begun, and from what."""

    priority = "VERY_HIGH"

    def __init__(self, started: TrainingStarted, run: dict[str, Any]) -> None:
        self.started = started
        self.run = run

    def before_train(self, runner: Runner) -> None:
        Runner.dump_config(runner)  # which a QuietRunner does not by itself
        if is_main_process():
            record_start(runner, self.run)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self.started.value:
            self.started.value, self.started.iteration = True, runner.iter


def run_training(
    cfg: Config,
    resume: str | None,
    started: TrainingStarted,
    *more_hooks: Hook,
    resume_changed: bool = False,
) -> Runner:
    """Build a Runner and train."""
    started.work_dir = cfg.work_dir
    install_safe_checkpoint_loading()  # after the config's custom_imports
    hooks = list(cfg.get("custom_hooks") or [])
    known = [type_name(hook) for hook in hooks]
    added = [name for name in _ALWAYS if type_name(name) not in known]
    cfg.custom_hooks = [*hooks, *(dict(type=name) for name in added)]
    if resume_changed:
        allow_other_labels(cfg)
    run = describe_run(cfg)
    _save_whole_checkpoints(cfg)
    apply_resume(cfg, resume)
    keeper = FingerprintHook(run["computed"], resume_changed)
    keeper.look_ahead(cfg)
    make_resumable(cfg)
    runner = ResumableRunner.from_cfg(cfg)
    runner.computed = run["computed"]
    preemption = PreemptionHook()
    for each in (_MarkStart(started, run), keeper, *more_hooks, preemption):
        runner.register_hook(each)
    try:
        with _told_of(preemption, started):
            runner.train()
    finally:
        end_workers(runner)
    log_caches(runner)
    return runner


def _save_whole_checkpoints(cfg: Config) -> None:
    """Put our hook in the place of MMEngine's, which writes checkpoints in place."""
    defaults = cfg.get("default_hooks") or {}
    defaults.setdefault("checkpoint", dict(type=_MMENGINES, interval=1))  # MMEngine's own
    cfg.default_hooks = defaults
    for hook in (*cfg.default_hooks.values(), *cfg.custom_hooks):
        if isinstance(hook, dict) and type_name(hook) == _MMENGINES:
            hook["type"] = "mmkd_logit.AtomicCheckpointHook"


@contextmanager
def _told_of(preemption: PreemptionHook, started: TrainingStarted) -> Iterator[None]:
    """Say how a run goes on that was asked to stop."""
    try:
        yield
    except SystemExit:
        if preemption.stopped and is_main_process():
            advice = f"; continue with: {started.again}" if started.again else ""
            print(f"{preemption.stopped}{advice}", file=sys.stderr, flush=True)
        raise
    finally:
        preemption.release()


# ``tools/train.py``: train a plain or a distilling config.


def _train_teacher(
    teacher: MissingTeacher,
    args: argparse.Namespace,
    outer: TrainingStarted,
    students: tuple[str, ...] = (),
) -> None:
    """Train a missing teacher, and before it those that its own config distils from."""
    if teacher.checkpoint in students:
        raise ValueError(f"{teacher.checkpoint} would be taught by its own student")
    words = [*teacher.arguments, "--launcher", args.launcher]
    words += ["--fast"] * args.fast  # in the folder that the student's config names, all the same
    words += ["--work-dir", str(Path(teacher.checkpoint).parent)] * ("--work-dir" not in words)
    if "data_root" in args.cfg_options:
        words += ["--cfg-options", f"data_root={args.cfg_options['data_root']}"]
    words += ["--amp"] * args.amp + ["--no-pin-memory"] * args.no_pin_memory
    print(f"training the teacher first: {teacher.command}", flush=True)
    started = TrainingStarted(outer.again)
    with one_line_errors(started):
        teacher_args = build_parser().parse_args(words)
        cfg = build_config(teacher_args)
        for missing in find_missing_teachers(cfg):
            if not missing.can_be_trained():
                raise ValueError(explain_missing([missing]))
            _train_teacher(missing, args, outer, (*students, teacher.checkpoint))
        start_processes(cfg)
        with only_run_in(cfg.work_dir):
            run_training(cfg, "auto" if should_resume(cfg) else None, started)
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
        dump_run(runner, args, recorder.run, recorder.machine)
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
    """Run ``tools/train.py``."""
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

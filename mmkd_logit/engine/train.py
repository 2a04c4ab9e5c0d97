"""Training one config."""

import argparse
import copy
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner

from mmkd_logit.checkpoint import (
    install_safe_checkpoint_loading,
    read_lazily,
)
from mmkd_logit.utils.arguments import check_flag, type_name
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import why_damaged, write_text

from .check import check_config
from .cli import TrainingStarted, resume_command
from .config import (
    FINAL,
    LocalTeacher,
    add_common_arguments,
    add_recipe_arguments,
    apply_common_arguments,
    apply_recipe_arguments,
    explain_missing,
    find_missing_teachers,
    local_teachers,
    read_training_config,
    seed_of,
    teachers_of,
    write_final,
)
from .fingerprint import (
    computed_content,
    describe_run,
    fingerprint,
    list_changes,
    read_run,
    row_fingerprint,
)
from .launch import (
    from_first_process,
    prepare_launch,
    running_tool,
    start_processes,
)
from .lock import only_run_in
from .logits import (
    add_export_argument,
    export_run,
    prepare_export,
)
from .precompute import log_caches
from .preemption import PreemptionHook
from .results import ResultsRecorder, find_row, read_lines, training_data_loader
from .resume import (
    STATE,
    FingerprintHook,
    find_checkpoint,
    last_checkpoint,
    record_start,
)
from .runner import ResumableRunner, end_workers, make_resumable

_SWITCHES = {
    "--resume-changed": "with --resume: go on also where config, data, labels or teacher differ",
    "--no-validate": "do not evaluate while training",
    "--auto-scale-lr": "scale the learning rate to the actual batch size, as the config's "
    "auto_scale_lr says",
    "--no-persistent-workers": "start data workers anew every epoch",
    "--train-teacher": "first train the teachers that are missing or cut off, and their teachers "
    "before them, for all of their epochs, into their own folders; refuse one of another config",
    "--retrain": "with --train-teacher: train a teacher anew that its config does not give",
    "--train-metrics": "with --results, also measure on the un-augmented training images",
}


def build_parser(place: str | None = None) -> argparse.ArgumentParser:
    """Return the command line of ``tools/train.py``: mmpretrain's flags and a few of ours."""
    text = "Train a model, plain or from a teacher's logits"
    parser = OneLineParser(description=text, place=place)
    parser.add_argument("config", help="config file, or mmpretrain::PATH")
    add_common_arguments(parser)
    add_recipe_arguments(parser)
    text = "continue from this checkpoint, or from the latest in the work folder"
    parser.add_argument("--resume", nargs="?", const="auto", help=text)
    text = "after training test the final weights and append one JSON line to FILE"
    parser.add_argument("--results", metavar="FILE", help=text)
    for flag, text in _SWITCHES.items():
        parser.add_argument(flag, action="store_true", help=text)
    add_export_argument(parser)
    return parser


def build_config(args: argparse.Namespace, cfg: Config | None = None) -> Config:
    """Merge the command line into the config it names."""
    cfg = read_training_config(args, cfg)
    apply_common_arguments(cfg, args)
    # The same as by the flag: where a run goes on is no part of it.
    if check_flag("resume", cfg.get("resume") or False):
        args.resume = args.resume or cfg.get("load_from") or "auto"
        cfg.resume, cfg.load_from = False, None
    apply_recipe_arguments(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume_changed and args.resume is None:
        raise ValueError("--resume-changed goes with --resume")
    if args.retrain and not args.train_teacher:
        raise ValueError("--retrain goes with --train-teacher")
    if args.train_metrics:
        if args.results is None:
            raise ValueError("--train-metrics goes with --results")
        if cfg.get("test_dataloader") is not None:
            training_data_loader(cfg)  # for its checks
    if args.dump_logits is not None:
        prepare_export(cfg, args.dump_logits)
    if args.auto_scale_lr:
        if not cfg.get("auto_scale_lr"):
            raise ValueError(
                f"--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {args.config}"
            )
        cfg.auto_scale_lr.enable = True
    if args.no_persistent_workers:
        cfg.train_dataloader.persistent_workers = False
    # What is only looked at is averaged as the losses beside it, also in configs of others.
    averaged = dict(mean_pattern=r"loss|time|grad_norm|(^|/)(ce|kd|teacher_agreement)$")
    cfg.log_processor = dict(averaged, **(cfg.get("log_processor") or {}))
    prepare_launch(cfg, args.launcher)
    return cfg


# A config's run, from its start or from a checkpoint, to its end.


def apply_resume(cfg: Config, resume: str | None) -> None:
    """Make a run continue; it starts from the beginning if there is nothing to continue."""
    if resume == "auto":
        last, problems = from_first_process(lambda: find_checkpoint(cfg.work_dir))
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
    *("ProgressBarHook", "LabelNoiseHook", "ResumeStateHook"),
    *("SyncBuffersBeforeEvalHook", "FiniteLossHook"),
)


class _MarkStart(Hook):
    """Notes that training has begun, and from what."""

    priority = "VERY_HIGH"

    def __init__(self, started: TrainingStarted, run: dict[str, Any]) -> None:
        self.started = started
        self.run = run

    def before_train(self, runner: Runner) -> None:
        if is_main_process():
            # What MMEngine's dump_config writes in place, and a QuietRunner does not by itself.
            name = Path(runner.cfg.filename or f"{runner.timestamp}.py").name
            write_text(Path(runner.work_dir, name), runner.cfg.dump())
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
    test: bool = False,
) -> Runner:
    """Build a Runner and train; ``test`` says that a test follows, which is tried before."""
    started.work_dir = cfg.work_dir
    install_safe_checkpoint_loading()  # after the config's custom_imports
    _add_hooks(cfg, test)
    run = describe_run(cfg)
    apply_resume(cfg, resume)
    keeper = FingerprintHook(run["computed"], resume_changed)
    keeper.look_ahead(cfg)
    if run["seed"] not in (None, seed_of(cfg)):  # which is the checkpoint's now
        randomness = dict(run["computed"]["randomness"], seed=seed_of(cfg))
        keeper.computed = dict(run["computed"], randomness=randomness)
        run.update(seed=seed_of(cfg), fingerprint=fingerprint(keeper.computed))
        run["computed"] = keeper.computed
    make_resumable(cfg)
    runner = ResumableRunner.from_cfg(cfg)
    runner.computed = run["computed"]
    preemption = PreemptionHook()
    for each in (_MarkStart(started, run), keeper, *more_hooks, preemption):
        runner.register_hook(each)
    try:
        runner.train()
    except SystemExit:
        if preemption.stopped and is_main_process():
            print(f"{preemption.stopped}{started.advice}", file=sys.stderr, flush=True)
        raise
    finally:
        preemption.release()
        end_workers(runner)
    log_caches(runner)
    return runner


def _add_hooks(cfg: Config, test: bool) -> None:
    """Add the hooks of every run, and put ours in the place of MMEngine's CheckpointHook."""
    hooks = list(cfg.get("custom_hooks") or [])
    known = {type_name(hook) for hook in hooks}
    added = [dict(type=f"mmkd_logit.{name}") for name in _ALWAYS if name not in known]
    preflight = dict(type="mmkd_logit.PreflightHook", test=test)
    cfg.custom_hooks = [*hooks, *added, *([] if "PreflightHook" in known else [preflight])]
    defaults = cfg.get("default_hooks") or {}
    defaults.setdefault("checkpoint", dict(type="CheckpointHook", interval=1))  # MMEngine's own
    cfg.default_hooks = defaults
    for hook in (*cfg.default_hooks.values(), *cfg.custom_hooks):
        if isinstance(hook, dict) and type_name(hook) == "CheckpointHook":
            hook["type"] = "mmkd_logit.AtomicCheckpointHook"  # MMEngine's writes in place


# ``tools/train.py``: train a config and, before it, the teachers that it needs.


class PlannedRun(NamedTuple):
    """A run of this command."""

    args: argparse.Namespace
    cfg: Config
    recorder: ResultsRecorder


def plan_runs(
    args: argparse.Namespace, argv: Sequence[str] = (), students: tuple[Path, ...] = ()
) -> dict[str, PlannedRun]:
    """List a run by its work folder, behind the runs that train its teachers, in their order.

    Only with ``--train-teacher`` are there others. ``students`` are the folders of the runs that
    wait for this one. Everything is checked here, before anything is trained.
    """
    cfg = build_config(args)
    check_config(cfg)
    recorder = ResultsRecorder(args.results, cfg, argv)
    # What taught a teacher that is there is compared with its config, and need not exist.
    is_there = bool(students) and Path(cfg.work_dir, FINAL).is_file() and not args.retrain
    teachers = [t for t in local_teachers(cfg) if not (is_there and t.is_missing)]
    missing = [teacher for teacher in teachers if teacher.is_missing]
    if missing and not (args.train_teacher and all(t.can_be_trained for t in missing)):
        raise ValueError(explain_missing(missing))
    runs: dict[str, PlannedRun] = {}
    for teacher in teachers if args.train_teacher else ():
        if not teacher.can_be_trained:
            continue
        waiting = (*students, Path(cfg.work_dir))
        if teacher.folder in waiting:
            raise ValueError(f"{teacher.checkpoint} would be taught by its own student")
        runs |= plan_runs(_teacher_arguments(teacher, args), argv, waiting)
    if missing:
        _check_build(cfg, args.config)  # rather than when the teachers have been trained
    if students:
        write_final(cfg)
    return {**runs, cfg.work_dir: PlannedRun(args, cfg, recorder)}


_OF_TEACHERS_TOO = (
    *("launcher", "fast", "amp", "no_pin_memory", "train_teacher", "retrain", "results"),
    "train_metrics",
)


def _teacher_arguments(teacher: LocalTeacher, args: argparse.Namespace) -> argparse.Namespace:
    """Return what trains a teacher: its config, with the flags that hold for it as well."""
    if teacher.generation:  # the same config, with all its flags
        own = copy.deepcopy(args)
        own.resume, own.resume_changed, own.dump_logits = None, False, None
        own.cfg_options["generations"] = teacher.generation
    else:
        own = build_parser().parse_args(teacher.arguments)
        for name in _OF_TEACHERS_TOO:
            setattr(own, name, getattr(args, name))
        if "data_root" in args.cfg_options:
            own.cfg_options = dict(data_root=args.cfg_options["data_root"])
    own.work_dir = str(teacher.folder)  # also with --fast
    return own


def _check_build(cfg: Config, name: str) -> None:
    """Build the model and the hooks of a run that begins when its teachers have been trained."""
    cfg = copy.deepcopy(cfg)
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmpretrain"):
            MODELS.build(cfg.model)
            for hook in cfg.get("custom_hooks") or []:
                HOOKS.build(hook)
        ours = (cfg.model.student.get("head") or {}).get("num_classes")
        for teacher in teachers_of(cfg).values():
            theirs = (teacher.resolve().model.get("head") or {}).get("num_classes")
            if None not in (ours, theirs) and ours != theirs:
                raise ValueError(f"its teacher has {theirs} classes and its student {ours}")
    except Exception as error:
        raise ValueError(f"{name} cannot be built: {error}") from error


def _settle_teacher(args: argparse.Namespace, cfg: Config) -> tuple[str, str | None]:
    """Say what a teacher's folder holds, and what to do: ``train``, ``resume`` or nothing."""
    final, noted = Path(cfg.work_dir, FINAL), read_run(cfg.work_dir)
    # Of a teacher's teacher that is gone, the folder says what its weights were.
    gone = {teacher.checkpoint for teacher in find_missing_teachers(cfg)}
    named = [teacher.checkpoint for teacher in teachers_of(cfg).values()]
    hashes = dict(zip(named, noted.get("teachers") or (), strict=False))
    weights = {name: hashes[name] for name in gone & {*hashes}}
    content = computed_content(cfg, weights=weights)
    same = row_fingerprint(noted) == fingerprint(content)
    damage = why_damaged(final, only_zip=True) if final.is_file() else None
    if not final.is_file() or damage:
        text = f"its {FINAL} is damaged ({damage}), " if damage else ""
        return (f"{text}goes on", "resume") if same else (f"{text}is trained first", "train")
    if same:
        if args.results is not None and not gone:
            rows, measured = read_lines(Path(args.results)), ["train"] * args.train_metrics
            if find_row(cfg, rows, content["processes"], measured) is None:
                return _test_again(args, cfg)
        return "was trained before", None
    if args.fast:  # which asks for speed, and not for fewer digits
        exact = build_config(argparse.Namespace(**{**vars(args), "fast": False}))
        if row_fingerprint(noted) == fingerprint(computed_content(exact, weights=weights)):
            return "was trained before, without --fast", None
    if args.retrain:
        return "is trained anew", "train"
    if "computed" not in noted:
        return f"is taken as it is, since nothing says what made {final}", None
    changes = list_changes(noted["computed"], content)
    raise ValueError(
        f"{final} is not the teacher that {args.config} gives: "
        f"{'; '.join(changes) or 'the number of epochs or processes differs'}. Leave out "
        "--train-teacher to be taught by it all the same, or add --retrain to train it anew"
    )


def _test_again(args: argparse.Namespace, cfg: Config) -> tuple[str, str | None]:
    """Resume a teacher at its end to test it: it was killed before it was recorded."""
    last = last_checkpoint(cfg.work_dir)
    state = read_lazily(str(last)).get(STATE) if last is not None else None
    if isinstance(state, dict) and state.get("finished"):
        return f"was trained before and is tested for {args.results}", "resume"
    return f"was trained before; its row in {args.results} is missing", None


def _train_teacher(run: PlannedRun, started: TrainingStarted) -> None:
    """Train a teacher unless it is there."""
    args, cfg, _ = run
    with only_run_in(cfg.work_dir):
        text, action = from_first_process(lambda: _settle_teacher(args, cfg))
        if is_main_process():
            print(f"the teacher {cfg.work_dir}/{FINAL} {text}", flush=True)
        if action is not None:
            args.resume = "auto" if action == "resume" else None
            _train(run, started)
    barrier()  # the student reads what the first process has written
    gc.collect()


def _train(run: PlannedRun, started: TrainingStarted) -> None:
    """Train one config and record the results."""
    args, cfg, recorder = run
    started.value, started.iteration = False, None
    recorder.start(cfg)
    changed, test = args.resume_changed, recorder.path is not None
    runner = run_training(cfg, args.resume, started, resume_changed=changed, test=test)
    recorder.record(runner, args, started)
    export_run(runner, args, recorder.run, recorder.machine)
    end_workers(runner)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/train.py``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    started = TrainingStarted(resume_command("train.py", argv))
    with running_tool(started):
        *teachers, run = plan_runs(args, argv).values()
        start_processes(run.cfg)
        with only_run_in(run.cfg.work_dir):
            for teacher in teachers:
                _train_teacher(teacher, started)
            _train(run, started)

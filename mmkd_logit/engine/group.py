"""Training a student group: several runs that share their batches and the pass of a teacher."""

import argparse
import copy
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, Runner

from mmkd_logit.hooks.networks import unwrapped
from mmkd_logit.utils.arguments import type_name
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_text

from .check import check_config
from .cli import TrainingStarted, resume_command
from .config import FINAL, explain_missing, find_missing_teachers, seed_of, teachers_of
from .fingerprint import (
    changes_training,
    computed_content,
    describe_run,
    fingerprint_of,
    log_folders,
    should_resume,
    write_run,
)
from .launch import from_first_process, running_tool, start_processes
from .lock import only_run_in
from .logits import export_run
from .results import ResultsRecorder, find_row, read_lines
from .runner import end_workers
from .save import POINTER, FinalCheckpointHook, record_checkpoint, save_atomically
from .train import build_config, run_training
from .train import build_parser as build_train_parser

# The fields of their configs in which the runs of a group may differ.
_OWN = (
    *("model", "optim_wrapper", "param_scheduler", "log_processor"),
    *("work_dir", "filename", "experiment_name"),
)


class GroupRun(NamedTuple):
    """One run of a group: its name there, its command line, its config as for a run alone."""

    name: str
    args: argparse.Namespace
    cfg: Config


def why_alone(cfg: Config) -> str | None:
    """Say why a run cannot join a group, or return None."""
    custom, defaults = cfg.get("custom_hooks") or [], cfg.get("default_hooks") or {}
    for hook in [*custom, *filter(None, defaults.values())]:
        if changes_training(hook) and type_name(hook) != "ChannelsLastHook":
            return f"{type_name(hook)} changes the training of one model"
        if type_name(hook) == "FinalCheckpointHook" and hook.get("filename", FINAL) != FINAL:
            return f"its last checkpoint is named {hook['filename']}"
    models = [cfg.model, cfg.model.get("student") or {}]
    preprocessors = [holder.get("data_preprocessor") or {} for holder in (cfg, *models)]
    optim = cfg.optim_wrapper
    reasons = {
        "load_from and resume are for one model": cfg.get("load_from") or cfg.get("resume"),
        "MixUp and the like are drawn for one student": (
            any((model.get("train_cfg") or {}).get("augments") for model in models)
            or any(each.get("batch_augments") for each in preprocessors)
        ),
        "feature_kd needs the teacher's features": cfg.model.get("feature_kd"),
        "randomness.seed is not set": seed_of(cfg) is None,
        "its optimizer accumulates gradients or scales its loss": (
            optim.get("accumulative_counts", 1) != 1 or type_name(optim) == "AmpOptimWrapper"
        ),
        "its schedule follows a validation": "ReduceOnPlateau" in str(cfg.get("param_scheduler")),
        "save_best is of one student": (defaults.get("checkpoint") or {}).get("save_best"),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def batches_key(cfg: Config) -> str:
    """Return what runs must agree in to share their batches."""
    content = {key: value for key, value in cfg.to_dict().items() if key not in _OWN}
    content["precision"] = [cfg.optim_wrapper.get(key) for key in ("type", "dtype")]
    inner = cfg.model.get("student") if type_name(cfg.model) == "LogitDistiller" else None
    preprocessors = [holder.get("data_preprocessor") for holder in (inner or {}, cfg.model, cfg)]
    content["preprocessor"] = next(filter(None, preprocessors), None)
    return json.dumps(content, sort_keys=True, default=repr)


def join_configs(cfgs: Mapping[str, Config]) -> Config:
    """Return the config that trains the students of several runs as a group."""
    for name, cfg in cfgs.items():
        why = why_alone(cfg)
        if why is not None:
            raise ValueError(f"the run {name} ({cfg.work_dir}) must be trained alone: {why}")
    if len({cfg.work_dir for cfg in cfgs.values()}) < len(cfgs):
        raise ValueError("two runs write to the same work_dir; give one of them --work-dir")
    keys = {name: json.loads(batches_key(cfg)) for name, cfg in cfgs.items()}
    first, expected = next(iter(keys.items()))
    for name, found in keys.items():
        wrong = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        if wrong:
            raise ValueError(
                f"the runs {first} and {name} differ in {', '.join(sorted(wrong))}; to share "
                "batches they may differ in model, optim_wrapper and param_scheduler only"
            )
    plain = {name: copy.deepcopy(cfg).to_dict() for name, cfg in cfgs.items()}
    joint = copy.deepcopy(cfgs[first])
    joint.model = dict(
        type="mmkd_logit.StudentGroup",
        students={name: cfg["model"] for name, cfg in plain.items()},
        seeds=seed_of(joint),
    )
    joint.optim_wrapper = dict(
        constructor="mmkd_logit.StudentGroupOptimConstructor",
        students={name: cfg["optim_wrapper"] for name, cfg in plain.items()},
    )
    joint.param_scheduler = {name: cfg.get("param_scheduler") or [] for name, cfg in plain.items()}
    if joint.get("val_cfg") is not None:
        joint.val_cfg = dict(joint.val_cfg, type="mmkd_logit.StudentGroupValLoop")
    wrapper = dict(joint.get("model_wrapper_cfg") or {}, type="mmkd_logit.StudentGroupDDP")
    wrapper.setdefault("broadcast_buffers", False)  # as MMEngine does without such a field
    if joint.get("find_unused_parameters"):
        wrapper["find_unused_parameters"] = True
    joint.model_wrapper_cfg = wrapper
    hooks = joint.get("custom_hooks") or []
    joint.custom_hooks = [hook for hook in hooks if type_name(hook) != "FinalCheckpointHook"]
    averaged = [  # what each run averages in its log lines, under the names of the group
        {k: f"{name}/{v}" if k in ("data_src", "log_name") else v for k, v in entry.items()}
        for name, cfg in plain.items()
        for entry in (cfg.get("log_processor") or {}).get("custom_cfg") or []
    ]
    joint.log_processor = dict(joint.get("log_processor") or {}, custom_cfg=averaged)
    return joint


# What each run leaves in its folder.


@contextmanager
def as_run(runner: Runner, run: GroupRun) -> Iterator[None]:
    """Let the Runner of a group be that of one of its runs."""
    own = dict(
        model=unwrapped(runner).students[run.name],
        cfg=run.cfg,
        _work_dir=run.cfg.work_dir,
        optim_wrapper=runner.optim_wrapper[run.name],
        param_schedulers=(runner.param_schedulers or {}).get(run.name),
        computed=computed_content(run.cfg),
    )
    before = {field: getattr(runner, field) for field in own}
    vars(runner).update(own)
    try:
        yield
    finally:
        vars(runner).update(before)


class GroupRunHook(FinalCheckpointHook):
    """Leave in the folder of one run what the run alone would leave there."""

    def __init__(self, run: GroupRun) -> None:
        super().__init__()
        self.run = run
        self.described = describe_run(run.cfg)

    def before_train(self, runner: Runner) -> None:
        """Remove the weights of another run in the folder, now that everything is built."""
        folder = Path(self.run.cfg.work_dir)
        if is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            if runner.iter < runner.max_iters or not should_resume(self.run.cfg):
                (folder / FINAL).unlink(missing_ok=True)
                write_run(folder, **self.described, logs=[], checkpoints=[])
                (folder / POINTER).unlink(missing_ok=True)
        with as_run(runner, self.run):
            super().before_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave in the run's own checkpoint what was logged of it, as alone."""
        super().before_save_checkpoint(runner, checkpoint)
        hub: Any = checkpoint.get("message_hub", {}) if runner.cfg is self.run.cfg else {}
        for part in {"log_scalars", "resumed_keys"} & {*hub}:
            for key in list(hub[part]):
                of_student = re.fullmatch(r"(train|val)/(s\d+)[/.](.*)", key)
                value = hub[part].pop(key)
                if of_student is None:
                    hub[part][key] = value
                elif of_student[2] == self.run.name:
                    hub[part][f"{of_student[1]}/{of_student[3]}"] = value

    def after_train(self, runner: Runner) -> None:
        """Write scalars, the checkpoint from which the run alone can be resumed, and final.pth."""
        if is_main_process():
            split_scalars(runner.work_dir, self.run.cfg.work_dir, self.run.name)
        with as_run(runner, self.run):
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            filename = f"epoch_{runner.epoch}.pth" if by_epoch else f"iter_{runner.iter}.pth"
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            # Of the end, whether it was trained or resumed there; others are the group's.
            runner.message_hub.update_info_dict(dict(meta, keep_ckpt_ids=[]))
            save_atomically(runner, runner.work_dir, filename, meta=meta)
            record_checkpoint(runner, str(Path(runner.work_dir, filename)))
            super().after_train(runner)


def split_scalars(group_dir: str | Path, work_dir: str | Path, name: str) -> None:
    """Write what MMEngine logged of one student of a group as for a run of its own."""
    sources = {path.parts[-3]: path for path in Path(group_dir).glob("*/vis_data/scalars.json")}
    logs = log_folders(group_dir, list(sources))
    for log in logs:
        text = ""
        for line in sources[log].read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # its process was killed
            shared, own = {}, {}
            for key, value in json.loads(line).items():
                of_student = re.fullmatch(r"(s\d+)[/.](.*)", key)
                if of_student is None:
                    shared[key] = value
                elif of_student[1] == name:
                    own[of_student[2]] = value
            if own:
                text += json.dumps({**own, **shared}) + "\n"
        write_text(Path(work_dir, *sources[log].parts[-3:]), text)
    write_run(work_dir, logs=logs)


# ``tools/train_group.py``: several runs of ``tools/train.py`` as one group.


_TOOL = "train_group.py"
_NOT_IN_LINES = ("results", "resume", "resume_changed", "train_teacher", "amp", "auto_scale_lr")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/train_group.py``."""
    parser = OneLineParser(
        description="Train several students on the same batches, with one pass of their teacher"
    )
    parser.add_argument(
        "runs", help="text file; on each line what follows tools/train.py for one of the runs"
    )
    parser.add_argument(
        "--results",
        metavar="FILE",
        help="after training test the final weights and append one JSON line for each run",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def read_runs(path: str | Path, launcher: str = "none") -> list[GroupRun]:
    """Read the command lines of the runs."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"the list of runs {path} does not exist")
    runs: list[GroupRun] = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:  # quotes
            raise ValueError(f"{path}:{number}: {error}; quote as a shell wants it") from None
        if not words:
            continue
        parser = build_train_parser(f"{path}:{number}")
        args = parser.parse_args(words)
        wrong = [name for name in _NOT_IN_LINES if getattr(args, name) != parser.get_default(name)]
        if wrong:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
            raise ValueError(f"{path}: a line names one run, without {flags}")
        if args.train_metrics:
            args.results = "-"  # only for the check of build_config
        args.launcher = launcher
        runs.append(GroupRun(f"s{len(runs)}", args, build_config(args)))
        check_config(runs[-1].cfg)
    if len(runs) < 2:
        raise ValueError(f"{path} names {len(runs)} runs; several share a teacher, not one")
    return runs


def common_work_dir(cfgs: Sequence[Config]) -> str:
    """Return the folder of what the runs have in common: the log and the checkpoints to resume."""
    words = "\n".join(sorted(f"{cfg.work_dir} {fingerprint_of(cfg)}" for cfg in cfgs))
    return str(Path("work_dirs", "group", hashlib.sha256(words.encode()).hexdigest()[:12]))


def train_group(
    runs: Sequence[GroupRun], results: str | None, argv: Sequence[str], started: TrainingStarted
) -> None:
    """Train, or resume, a group; write ``final.pth`` of each run and append its results.

    Each run's folder then holds what ``tools/train.py`` would leave there of a finished run,
    except the text of its log and earlier checkpoints.
    """
    cfg = join_configs({run.name: run.cfg for run in runs})
    cfg.work_dir = common_work_dir([run.cfg for run in runs])
    _check_teachers([run.cfg for run in runs])
    start_processes(cfg)
    recorders = [ResultsRecorder(results, run.cfg, argv, _TOOL) for run in runs]
    with only_run_in(cfg.work_dir, *(run.cfg.work_dir for run in runs)):
        for run, recorder in zip(runs, recorders, strict=True):
            recorder.start(run.cfg)
            if is_main_process():
                print(f"{run.name}: {run.args.config} in {run.cfg.work_dir}", flush=True)
        if is_main_process():
            print(f"student group in {cfg.work_dir}", flush=True)
        resume = "auto" if should_resume(cfg) else None
        runner = run_training(cfg, resume, started, *map(GroupRunHook, runs))
        for recorder in recorders:
            recorder.stop()
        for run, recorder in zip(runs, recorders, strict=True):
            with as_run(runner, run):
                _record(runner, run, recorder, started, len(runs))
        end_workers(runner)


def _check_teachers(cfgs: Sequence[Config]) -> None:
    """Raise ValueError if a teacher is missing, or another run of the group makes it."""
    made = {Path(cfg.work_dir, FINAL).resolve() for cfg in cfgs}
    for cfg in cfgs:
        for teacher in teachers_of(cfg).values():
            if teacher.file is not None and teacher.file.resolve() in made:
                raise ValueError(
                    f"the run in {cfg.work_dir} needs {teacher.checkpoint}, which another run of "
                    "the list makes; train that one first"
                )
        missing = find_missing_teachers(cfg)
        if missing:
            raise ValueError(explain_missing(missing))


def _record(
    runner: Runner,
    run: GroupRun,
    recorder: ResultsRecorder,
    started: TrainingStarted,
    group_size: int,
) -> None:
    """Test and record a run, unless it is recorded, and export the logits that it asks for."""
    path, measured = recorder.path, ["train"] * run.args.train_metrics
    if path is not None and not from_first_process(
        lambda: find_row(run.cfg, read_lines(path), runner.world_size, measured) is not None
    ):
        # The weights of a row and its metrics belong together, whoever wrote final.pth.
        final = str(Path(runner.work_dir, FINAL))
        checkpoint = CheckpointLoader.load_checkpoint(final, map_location="cpu")
        runner.model.load_state_dict(checkpoint["state_dict"])
        recorder.record(runner, run.args, started, f"{run.name}/", group_size)
    export_run(runner, run.args, recorder.run, recorder.machine)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/train_group.py``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    started = TrainingStarted(resume_command(_TOOL, argv, flag=False))
    with running_tool(started):
        train_group(read_runs(args.runs, args.launcher), args.results, argv, started)

"""Several runs that share batches and a teacher's pass."""

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

import torch
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, Runner, ValLoop

from mmkd_logit.checkpoint import install_safe_reading
from mmkd_logit.registry import LOOPS
from mmkd_logit.utils.arguments import type_name
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import why_damaged, write_text

from .chain import start_processes
from .cli import TrainingStarted, one_line_errors, resume_command
from .config import FINAL, explain_missing, find_missing_teachers, seed_of, teacher_specs
from .config_check import check_config
from .fingerprint import (
    computed_content,
    describe_run,
    fingerprint_of,
    log_folders,
    should_resume,
    write_run,
)
from .launch import silence_known_warnings
from .lock import only_run_in
from .logits import dump_run
from .results import ResultsRecorder, find_row, read_lines
from .runner import end_workers
from .save import POINTER, FinalCheckpointHook, record_checkpoint, save_atomically
from .train import build_config, run_training
from .train import build_parser as build_train_parser

# In these the runs may differ.
_OWN = (
    "model",
    "optim_wrapper",
    "param_scheduler",
    "work_dir",
    "log_processor",
    "filename",
    "experiment_name",
)
_FINAL = "FinalCheckpointHook"
_ALLOWED_HOOKS = (
    *(_FINAL, "ProgressBarHook", "LabelNoiseHook", "ChannelsLastHook", "LogitOutputsHook"),
    *("ClassifierSumHook", "TrainAccuracyHook", "PreflightHook", "FiniteLossHook"),
)
_DEFAULT_HOOKS = (
    *("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"),
    *("visualization", "logit_outputs", "classifier_sum", "train_accuracy"),
)


def why_alone(cfg: Config) -> str | None:
    """Say why a run cannot share its batches with others, or return None."""
    for hook in cfg.get("custom_hooks") or []:
        if not isinstance(hook, dict) or type_name(hook) not in _ALLOWED_HOOKS:
            kind = hook.get("type") if isinstance(hook, dict) else hook
            return f"{kind} of custom_hooks expects a model of its own"
        if hook.get("filename", FINAL) != FINAL:
            return f"its last checkpoint is named {hook['filename']}"
    known = set(cfg.get("default_hooks") or {}) - set(_DEFAULT_HOOKS)
    if known:
        return f"{sorted(known)[0]} of default_hooks expects a model of its own"
    if cfg.get("load_from") or cfg.get("resume"):
        return "load_from and resume are for one model"
    if _augments(cfg):
        return "MixUp and the like are drawn for one student"
    if cfg.model.get("feature_kd"):
        return "feature_kd needs the teacher's features"
    if seed_of(cfg) is None:
        return "randomness.seed is not set"
    optim = cfg.optim_wrapper
    if optim.get("accumulative_counts", 1) != 1 or type_name(optim) == "AmpOptimWrapper":
        return "its optimizer accumulates gradients or scales its loss"
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if checkpoint.get("save_best"):
        return "save_best is of one student"
    return None


def _augments(cfg: Config) -> bool:
    """Whether batches are mixed: by the model's ``train_cfg`` or by its preprocessor."""
    models = [cfg.model, cfg.model.get("student") or {}]
    mixed = [(model.get("train_cfg") or {}).get("augments") for model in models]
    makers = [holder.get("data_preprocessor") or {} for holder in (cfg, *models)]
    return any(mixed) or any(maker.get("batch_augments") for maker in makers)


def batches_key(cfg: Config) -> str:
    """Return what runs must agree in to share their batches."""
    content = {key: value for key, value in cfg.to_dict().items() if key not in _OWN}
    content["precision"] = [cfg.optim_wrapper.get(key) for key in ("type", "dtype")]
    content["preprocessor"] = _preprocessor(cfg)
    return json.dumps(content, sort_keys=True, default=repr)


def _preprocessor(cfg: Config) -> Any:
    model = cfg.model
    inner = model.get("student") if type_name(model) == "LogitDistiller" else None
    for holder in (inner or {}, model, cfg):
        if holder.get("data_preprocessor"):
            return dict(holder["data_preprocessor"])
    return None


def join_configs(cfgs: Mapping[str, Config]) -> Config:
    """Return the config that trains several runs' students in one."""
    for name, cfg in cfgs.items():
        why = why_alone(cfg)
        if why is not None:
            raise ValueError(f"the run {name} ({cfg.work_dir}) must be trained alone: {why}")
    if len({cfg.work_dir for cfg in cfgs.values()}) < len(cfgs):
        raise ValueError("two runs write to the same work_dir; give one of them --work-dir")
    first = next(iter(cfgs.values()))
    expected = json.loads(batches_key(first))
    for name, cfg in cfgs.items():
        found = json.loads(batches_key(cfg))
        keys = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        if keys:
            raise ValueError(
                f"the runs {next(iter(cfgs))} and {name} differ in {', '.join(sorted(keys))}; to "
                "share batches they may differ in model, optim_wrapper and param_scheduler only"
            )
    return _joined(first, cfgs)


def _joined(first: Config, cfgs: Mapping[str, Config]) -> Config:
    joint = copy.deepcopy(first)
    seed = seed_of(first)
    joint.model = dict(
        type="mmkd_logit.StudentGroup",
        students={name: copy.deepcopy(cfg.model.to_dict()) for name, cfg in cfgs.items()},
        seeds=seed,
    )
    joint.optim_wrapper = dict(
        constructor="mmkd_logit.StudentGroupOptimConstructor",
        students={name: copy.deepcopy(cfg.optim_wrapper.to_dict()) for name, cfg in cfgs.items()},
    )
    schedules = {name: copy.deepcopy(cfg.get("param_scheduler")) for name, cfg in cfgs.items()}
    joint.param_scheduler = {name: value or [] for name, value in schedules.items()}
    if joint.get("val_cfg") is not None:
        joint.val_cfg = dict(joint.val_cfg, type="mmkd_logit.StudentGroupValLoop")
    wrapper = dict(joint.get("model_wrapper_cfg") or {}, type="mmkd_logit.StudentGroupDDP")
    wrapper.setdefault("broadcast_buffers", False)  # as MMEngine does without such a field
    if joint.get("find_unused_parameters"):
        wrapper["find_unused_parameters"] = True
    joint.model_wrapper_cfg = wrapper
    hooks = joint.get("custom_hooks") or []
    joint.custom_hooks = [hook for hook in hooks if type_name(hook) != _FINAL]
    joint.log_processor = _join_logs(joint, cfgs)
    return joint


def _join_logs(joint: Config, cfgs: Mapping[str, Config]) -> dict[str, Any]:
    """Average what each run averages in its log lines, under the names of the group."""
    processor = dict(joint.get("log_processor") or {})
    custom = []
    for name, cfg in cfgs.items():
        for entry in (cfg.get("log_processor") or {}).get("custom_cfg") or []:
            renamed = dict(entry, data_src=f"{name}/{entry['data_src']}")
            if "log_name" in entry:
                renamed["log_name"] = f"{name}/{entry['log_name']}"
            custom.append(renamed)
    processor["custom_cfg"] = custom
    return processor


# Validating each student of a group.


@LOOPS.register_module()
class StudentGroupValLoop(ValLoop):
    """Show every batch to every student; metrics are named ``NAME/METRIC``.

    Args:
        runner: Of the group.
        dataloader: As of MMEngine's loop.
        evaluator: As of MMEngine's loop; each student has a copy.
        fp16: As of MMEngine's loop.
    """

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.students = model.students
        self.evaluators = {name: copy.deepcopy(self.evaluator) for name in self.students}

    def run(self) -> dict[str, Any]:
        """Validate.

        Returns:
            The metrics of all.
        """
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        self.runner.model.eval()
        for number, batch in enumerate(self.dataloader):
            self.run_iter(number, batch)
        size = len(self.dataloader.dataset)
        metrics = {
            f"{name}/{key}": value
            for name, evaluator in self.evaluators.items()
            for key, value in evaluator.evaluate(size).items()
        }
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Show one batch to every student.

        Args:
            idx: Its number.
            data_batch: Of the data loader.
        """
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        outputs: Any = None
        for name, student in self.students.items():
            with torch.autocast(next(student.parameters()).device.type, enabled=self.fp16):
                outputs = student.val_step(data_batch)
            self.evaluators[name].process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            "after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )


# What runs that were trained together leave, each in its folder.


class Member(NamedTuple):
    """One of the runs.

    Attributes:
        args: Its parsed command line.
        cfg: Its complete config, as for a run of its own.
    """

    args: argparse.Namespace
    cfg: Config


class MarkMembersHook(Hook):
    """Say in the runs' folders whose weights will come, and remove those of others."""

    priority = "VERY_HIGH"

    def __init__(self, cfgs: Sequence[Config]) -> None:
        self.runs = [(cfg, describe_run(cfg)) for cfg in cfgs]

    def before_train(self, runner: Runner) -> None:
        """Do so, now that everything is built."""
        if not is_main_process():
            return
        for cfg, run in self.runs:
            folder = Path(cfg.work_dir)
            folder.mkdir(parents=True, exist_ok=True)
            if runner.iter < runner.max_iters or not should_resume(cfg):
                (folder / FINAL).unlink(missing_ok=True)
                write_run(folder, **run, logs=[], checkpoints=[])
                (folder / POINTER).unlink(missing_ok=True)


def finish(
    runner: Runner,
    name: str,
    member: Member,
    recorder: ResultsRecorder,
    started: TrainingStarted,
    common: str,
) -> None:
    """Leave in a run's folder what others take from it, and record it."""
    final = Path(runner.work_dir, FINAL)
    # One process looks at the files for all, since it writes some of them meanwhile.
    if _agree(started.iteration is not None or not _is_whole(final)):
        if is_main_process():
            split_scalars(common, runner.work_dir, name)
        _save_last(runner)
        _write_final(runner)  # where it is there, a run that was killed had done the rest
    elif _agree(_is_recorded(runner, member, recorder)):
        dump_run(runner, member.args, recorder.run, recorder.machine)
        return
    else:
        state = CheckpointLoader.load_checkpoint(str(final), map_location="cpu")["state_dict"]
        runner.model.load_state_dict(state)
    barrier()
    recorder.record(
        runner, member.args, started, prefix=f"{name}/", together=len(_students(runner))
    )
    dump_run(runner, member.args, recorder.run, recorder.machine)


def _write_final(runner: Runner) -> None:
    hook = FinalCheckpointHook()
    runner.register_hook(hook)  # it has a say in what is saved
    try:
        hook.after_train(runner)
    finally:
        runner.hooks.remove(hook)


def _agree(value: bool) -> bool:
    values = [value]
    broadcast_object_list(values)
    return values[0]


def _is_whole(final: Path) -> bool:
    return final.is_file() and why_damaged(final, only_zip=True) is None


def _is_recorded(runner: Runner, member: Member, recorder: ResultsRecorder) -> bool:
    if recorder.path is None:
        return True
    measured = ["train"] * member.args.train_metrics
    rows = read_lines(recorder.path)
    return find_row(member.cfg, rows, runner.world_size, measured) is not None


def _save_last(runner: Runner) -> None:
    """Write the checkpoint from which the run alone can be measured again."""
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    filename = f"epoch_{runner.epoch}.pth" if by_epoch else f"iter_{runner.iter}.pth"
    meta = dict(epoch=runner.epoch, iter=runner.iter)
    # Of the end, whether it was trained or resumed there; and other checkpoints are the group's.
    runner.message_hub.update_info_dict(dict(meta, keep_ckpt_ids=[]))
    save_atomically(runner, runner.work_dir, filename, meta=meta)
    record_checkpoint(runner, str(Path(runner.work_dir, filename)))


def split_scalars(common: str | Path, work_dir: str | Path, name: str) -> None:
    """Write what MMEngine logged of one student of a group as of a run of its own."""
    sources = {path.parts[-3]: path for path in Path(common).glob("*/vis_data/scalars.json")}
    logs = log_folders(common, list(sources))
    for log in logs:
        lines = []
        for line in sources[log].read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # its process was killed
            row = json.loads(line)
            own = {
                key.removeprefix(f"{name}/").removeprefix(f"{name}."): value
                for key, value in row.items()
                if re.match(rf"{name}[/.]", key) or not re.match(r"s\d+[/.]", key)
            }
            if len(own) > len(row.keys() & own.keys()):  # else the line is of nobody's values
                lines.append(json.dumps(own))
        target = Path(work_dir, *sources[log].parts[-3:])
        write_text(target, "".join(f"{line}\n" for line in lines))
    write_run(work_dir, logs=logs)


_GROUP = "_mmkd_logit_group"


def _students(runner: Runner) -> Any:
    model = getattr(runner, _GROUP, runner.model)
    return (model.module if is_model_wrapper(model) else model).students


@contextmanager
def as_member(runner: Runner, name: str, cfg: Config) -> Iterator[None]:
    """Let a trained Runner be that of one of the runs."""
    fields = ("model", "cfg", "_work_dir", "optim_wrapper", "param_schedulers", "computed")
    before = {field: getattr(runner, field) for field in fields}
    setattr(runner, _GROUP, runner.model)
    schedules = (runner.param_schedulers or {}).get(name)
    own = (
        *(_students(runner)[name], cfg, cfg.work_dir, runner.optim_wrapper[name], schedules),
        computed_content(cfg),
    )
    vars(runner).update(zip(fields, own, strict=True))
    try:
        yield
    finally:
        delattr(runner, _GROUP)
        vars(runner).update(before)


# ``tools/train_together.py``: several runs of ``tools/train.py`` as one, with shared teachers.


_NOT_IN_LINES = (*("results", "resume", "resume_changed", "train_teacher", "amp", "auto_scale_lr"),)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/train_together.py``."""
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


def read_members(path: str | Path, launcher: str = "none") -> list[Member]:
    """Read the command lines of the runs."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"the list of runs {path} does not exist")
    members = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        words = _split(line, f"{path}:{number}")
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
        members.append(Member(args, build_config(args)))
        check_config(members[-1].cfg)
    if len(members) < 2:
        raise ValueError(f"{path} names {len(members)} runs; several share a teacher, not one")
    return members


def _split(line: str, place: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:  # quotes
        raise ValueError(f"{place}: {error}; quote as a shell wants it") from None


def common_work_dir(cfgs: Sequence[Config]) -> str:
    """Return the folder of what the runs have in common: the log and the checkpoints to resume."""
    words = "\n".join(sorted(f"{cfg.work_dir} {fingerprint_of(cfg)}" for cfg in cfgs))
    return str(Path("work_dirs", "together", hashlib.sha256(words.encode()).hexdigest()[:12]))


def train_together(
    members: Sequence[Member], results: str | None, argv: Sequence[str], started: TrainingStarted
) -> None:
    """Train, write each run's ``final.pth`` and append its results.

    What was cut off goes on. Each run's folder then holds what ``tools/train.py`` would leave
    there of a finished run, but for the text of its log and earlier checkpoints.
    """
    names = {f"s{number}": member for number, member in enumerate(members)}
    cfg = join_configs({name: member.cfg for name, member in names.items()})
    cfg.work_dir = common_work_dir([member.cfg for member in members])
    _refuse_own_teachers([member.cfg for member in members])
    start_processes(cfg)
    recorders = {}
    for name, member in names.items():
        missing = find_missing_teachers(member.cfg)
        if missing:
            raise ValueError(explain_missing(missing))
        recorders[name] = ResultsRecorder(results, member.cfg, argv, "train_together.py")
    with only_run_in(cfg.work_dir, *(member.cfg.work_dir for member in members)):
        _train(names, cfg, recorders, started)


def _train(
    names: Mapping[str, Member],
    cfg: Config,
    recorders: Mapping[str, ResultsRecorder],
    started: TrainingStarted,
) -> None:
    """Train what is joined, and leave to each run what is its own."""
    for name, recorder in recorders.items():
        recorder.start(names[name].cfg)
    resumes = should_resume(cfg)
    if is_main_process():
        _announce(names, cfg)
    mark = MarkMembersHook([member.cfg for member in names.values()])
    runner = run_training(cfg, "auto" if resumes else None, started, mark)
    for recorder in recorders.values():
        recorder.stop()
    for name, member in names.items():
        with as_member(runner, name, member.cfg):
            finish(runner, name, member, recorders[name], started, cfg.work_dir)
    end_workers(runner)


def _announce(names: Mapping[str, Member], cfg: Config) -> None:
    for name, member in names.items():
        print(f"{name}: {member.args.config} in {member.cfg.work_dir}", flush=True)
    print(f"together in {cfg.work_dir}", flush=True)


def _refuse_own_teachers(cfgs: Sequence[Config]) -> None:
    """Let no run teach another of the list: its weights are only being made."""
    made = {Path(cfg.work_dir, FINAL).resolve() for cfg in cfgs}
    for cfg in cfgs:
        for spec in teacher_specs(cfg):
            checkpoint = spec.get("checkpoint") if isinstance(spec, dict) else None
            if isinstance(checkpoint, str) and Path(checkpoint).resolve() in made:
                raise ValueError(
                    f"the run in {cfg.work_dir} needs {checkpoint}, which another run of the list "
                    "makes; train that one first"
                )


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/train_together.py``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    started = TrainingStarted(resume_command("train_together.py", argv, flag=False))
    with one_line_errors(started):
        silence_known_warnings()
        install_safe_reading()
        members = read_members(args.runs, args.launcher)
        train_together([copy.copy(member) for member in members], args.results, argv, started)

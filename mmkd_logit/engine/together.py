"""``tools/train_together.py``: several runs of ``tools/train.py`` as one, with shared teachers."""

import argparse
import copy
import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmkd_logit._command_line import OneLineParser

from ._loader_workers import end_workers
from .chain_run import start_processes
from .config_check import check_config
from .errors import TrainingStarted, one_line_errors, resume_command
from .fingerprint import fingerprint_of
from .launch import silence_known_warnings
from .provenance import is_origin
from .results import ResultsRecorder
from .run_lock import only_run_in
from .safe_reading import install_safe_reading
from .teachers import FINAL, explain_missing, find_missing_teachers, teacher_specs
from .together_config import join_configs
from .together_results import MarkMembersHook, Member, as_member, finish
from .train_config import build_config
from .train_config import build_parser as build_train_parser
from .training import run_training

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
    """Read the command lines of the runs.

    Args:
        path: The file; empty lines and those that begin with ``#`` are passed over.
        launcher: How the processes of all are started.

    Raises:
        FileNotFoundError: If it, or a config, does not exist.
        ValueError: If a line has a flag that is not for single runs, or fewer than two remain.
    """
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
    """Return the folder of what the runs have in common: the log and the checkpoints to resume.

    Args:
        cfgs: Of the runs.
    """
    words = "\n".join(sorted(f"{cfg.work_dir} {fingerprint_of(cfg)}" for cfg in cfgs))
    return str(Path("work_dirs", "together", hashlib.sha256(words.encode()).hexdigest()[:12]))


def train_together(
    members: Sequence[Member], results: str | None, argv: Sequence[str], started: TrainingStarted
) -> None:
    """Train, write each run's ``final.pth`` and append its results.

    What was cut off goes on. Each run's folder then holds what ``tools/train.py`` would leave
    there of a finished run, but for the text of its log and earlier checkpoints.

    Args:
        members: The runs.
        results: File of JSON lines, or None.
        argv: The command line.
        started: Set once the first iteration begins.

    Raises:
        ValueError: If the runs do not fit together or a teacher is missing.
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
    resumes = is_origin(cfg)
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
    """Run ``tools/train_together.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    started = TrainingStarted(resume_command("train_together.py", argv, flag=False))
    with one_line_errors(started):
        silence_known_warnings()
        install_safe_reading()
        members = read_members(args.runs, args.launcher)
        train_together([copy.copy(member) for member in members], args.results, argv, started)

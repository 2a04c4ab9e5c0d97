"""``tools/reproduce.py``: run what experiments still need and print their tables."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mmkd_logit.engine.check import check_config
from mmkd_logit.engine.cli import TrainingStarted, resume_command
from mmkd_logit.engine.config import add_override_argument
from mmkd_logit.engine.launch import running_tool
from mmkd_logit.engine.logits import add_export_argument
from mmkd_logit.engine.preemption import EXIT_CODES
from mmkd_logit.engine.results import read_lines
from mmkd_logit.registry import config_path
from mmkd_logit.utils.arguments import check_out_file
from mmkd_logit.utils.cli import OneLineParser, program, say

from .experiment import Experiment
from .pools import ClusterPool, LocalPool, default_devices
from .scheduler import Scheduler
from .tables import describe_experiment, write_tables

EXPERIMENTS = config_path("mmkd_logit::paper")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/reproduce.py``."""
    parser = OneLineParser(
        description="Train what experiments still need, skip what is done, print their tables"
    )
    add = parser.add_argument
    add(
        "experiments",
        nargs="+",
        help="names of files in configs/paper, such as table1; all; or paths of such files",
    )
    add("--scale", metavar="NAME", help="small versions: digits, or cpu (CIFAR-100 on a CPU)")
    add("--seeds", type=int, help="how many seeds, 0, 1, 2 ...; default: the experiment's, or 1")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="runs by name, such as '*_mse'")
    add("--epochs", type=int, help="epochs of the longest runs, the others in proportion")
    add(
        "--share-teacher",
        nargs="?",
        type=int,
        const=8,
        default=1,
        metavar="N",
        help="train up to N (8) students of one teacher together, with one pass of it",
    )
    add("--fast", action="store_true", help="train every run in bfloat16, apart from exact runs")
    add("--dry-run", action="store_true", help="list the runs, and their cost by earlier rows")
    text = "with --dry-run: time a few steps of every network that no row has measured"
    add("--estimate", action="store_true", help=text)
    add(
        "--devices",
        help="comma-separated GPUs: one run at a time on each (0,1), several on each (0,0,1,1), "
        "each on several (0+1); or cpu; default: GPU 0, or a CPU process a core",
    )
    add("--launcher", choices=["none", "slurm", "local"], default="none", help="job system")
    add("--jobs", type=int, default=64, help="jobs in the job system at one time")
    add_override_argument(parser, "--cluster-option", "of submitit, such as slurm_partition=gpu")
    add_export_argument(parser)
    add("--results", default="results", help="folder of runs.jsonl, the tables and the report")
    add("--no-train", action="store_true", help="only the tables and the page of what is done")
    add("--no-report", action="store_true", help="write no page with all tables and figures")
    add(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="overrides for every run, marked in the table",
    )
    return parser


def find_experiments(names: Sequence[str], scale: str | None) -> list[Path]:
    """Find the files of experiments, given by name or by path."""
    folder = EXPERIMENTS if scale is None else EXPERIMENTS / scale
    known = sorted(path.stem for path in folder.glob("*.py"))
    if not known:
        scales = sorted(path.name for path in EXPERIMENTS.iterdir() if path.is_dir())
        raise ValueError(f"no scale {scale!r} of the experiments (known: {', '.join(scales)})")
    paths: list[Path] = []
    for name in names:
        if name.endswith(".py"):
            paths.append(Path(name))
        elif name == "all" or name in known:
            paths += [folder / f"{each}.py" for each in (known if name == "all" else [name])]
        else:
            of_scale = "" if scale is None else f" of the scale {scale}"
            raise ValueError(
                f"no experiment {name!r}{of_scale} (known: {', '.join(known)}, all); "
                "or name a file: PATH.py"
            )
    paths = list(dict.fromkeys(paths))
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise ValueError(f"two experiments are named {twice!r} and would write the same tables")
    return paths


def _pool(args: argparse.Namespace) -> LocalPool | ClusterPool:
    if args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    if args.launcher == "none":
        if args.cluster_option:
            raise ValueError("--cluster-option is for jobs; add --launcher slurm, or leave it out")
        pool = LocalPool(default_devices() if args.devices is None else args.devices.split(","))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        slices = visible.count("MIG-")  # of which a process of CUDA sees one
        count = slices or torch.cuda.device_count()
        missing = pool.gpus - {*range(count)}
        if missing:
            raise ValueError(
                f"--devices {args.devices}: there is no GPU {min(missing)} among the {count} that "
                "are visible here"
            )
        return pool
    if args.devices:
        raise ValueError("--devices is for this machine; --cluster-option says what a job gets")
    folder = Path(args.results, "submitit")
    return ClusterPool(args.launcher, folder, args.jobs, args.cluster_option)


def _read_experiments(args: argparse.Namespace) -> list[Experiment]:
    """Read the experiments, but for those that ``--only`` chooses nothing of."""
    paths = find_experiments(args.experiments, args.scale)
    options = tuple(args.cfg_options), args.epochs, args.only, args.fast
    experiments = [each for path in paths if (each := Experiment(path, *options)).cells]
    if not experiments:
        raise ValueError(f"--only {' '.join(args.only)} fits no run of these experiments")
    return experiments


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End at SIGTERM and SIGUSR1; on its way out the pool ends what is under way, which saves."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(EXIT_CODES[signal.Signals(number)])

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/reproduce.py``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    again = resume_command("reproduce.py", argv, flag=False)
    with running_tool(TrainingStarted(again)), _ended_by_signals():
        words = [word for word in argv if word != "--no-train"]
        _reproduce(args, [*program("reproduce.py"), *words])


def _reproduce(args: argparse.Namespace, command: list[str]) -> None:
    counts = {"--seeds": args.seeds, "--share-teacher": args.share_teacher, "--epochs": args.epochs}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if args.estimate and not args.dry_run:
        raise ValueError("--estimate goes with --dry-run")
    results = Path(args.results, "runs.jsonl")
    check_out_file("--results", results)
    pool = _pool(args)
    experiments = _read_experiments(args)
    plan = {each: each.runs(list(range(args.seeds or each.seeds))) for each in experiments}
    scheduler = Scheduler(plan, results, pool, say, args.share_teacher, args.dump_logits)
    if args.cfg_options:  # the configs themselves are tested
        for cfg in scheduler.configs.values():
            check_config(cfg)
    if args.dry_run:
        rows = [*read_lines(results), *read_lines(EXPERIMENTS / "measured.jsonl")]
        from .cost import Timer, describe_plan  # imports what a training does

        timer = None
        if args.estimate:
            if torch.cuda.is_available() and isinstance(pool, LocalPool) and not pool.gpus:
                raise ValueError("--estimate would time on a GPU; CUDA_VISIBLE_DEVICES= hides it")
            torch.set_num_threads(getattr(pool, "threads", torch.get_num_threads()))
            timer = Timer(scheduler)
        return print("\n".join(describe_plan(scheduler, rows, timer)))
    found = scheduler.find_all() if args.no_train else scheduler()
    folder = Path(args.results, args.scale or "")
    for experiment, runs in plan.items():
        mine = {run: row for run in runs if (row := found[run.work_dir]) or not args.no_train}
        record = describe_experiment(experiment, mine, scheduler.configs, command, folder)
        write_tables(experiment, mine, record, folder)
        say(f"table: {folder / experiment.name}.md")
    if not args.no_report:
        _report(args.results)
    if not args.no_train and (None in found.values() or any(map(scheduler.needs_export, found))):
        raise SystemExit(1)


def _report(results: str) -> None:
    """Write the page about all experiments in the folder; the tables stand without it."""
    from .report.page import build_report  # matplotlib takes its time

    try:
        path, problems = build_report(results)
    except Exception as error:
        return say(f"no report: {' '.join(str(error).split()) or type(error).__name__}")
    for problem in problems:
        say(problem)
    say(f"report: {path}")

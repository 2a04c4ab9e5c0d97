"""Command line of the report and of single figures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_logit.utils.arguments import check_out_folder
from mmkd_logit.utils.cli import OneLineParser

from .data import Experiment, experiment_of_folders, is_work_folder, read_results
from .figures import FIGURES
from .page import build_report
from .page_figures import render_figures


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/report.py``."""
    parser = OneLineParser(
        description="Write one HTML file with every table and figure of a folder of results, or "
        "one figure as PNG and SVG"
    )
    parser.add_argument(
        "results",
        nargs="*",
        help="the folder that tools/reproduce.py wrote to; of some figures also work folders of "
        "runs outside any experiment",
    )
    add = parser.add_argument
    add("--figure", choices=list(FIGURES), help="draw this figure and write no page")
    add("--experiment", nargs="+", default=[], metavar="NAME", help="of --figure: only these")
    add("--out", metavar="PATH", help="the page, or the folder of --figure; default: in RESULTS")
    add("--root", metavar="FOLDER", help="where the runs' files lie, if moved")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/report.py``."""
    args = build_parser().parse_args(argv)
    try:
        written, problems = _figure(args) if args.figure else _page(args)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    for problem in problems:
        print(" ".join(problem.split()), file=sys.stderr)
    for path in written:
        print(path)
    if args.figure and problems:
        raise SystemExit(1)


def _page(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    if len(args.results) != 1 or args.experiment:
        raise ValueError("the page is of one folder of results and all of its experiments")
    path, problems = build_report(args.results[0], args.out, args.root)
    return [path], problems


def _figure(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    if args.out is not None:
        check_out_folder("--out", args.out)
    experiments = _read_experiments(args) if FIGURES[args.figure].NEEDS else []
    folders = [path for path in args.results if not is_work_folder(Path(path))]
    out = args.out or (Path(folders[0], "figures") if folders else Path("figures"))
    written, problems = list[Path](), list[str]()
    for experiment, rendered in render_figures(experiments, {args.figure: FIGURES[args.figure]}):
        if isinstance(rendered, str):
            problems.append(f"error: {experiment.key if experiment else 'no'}: {rendered}")
        else:
            written += rendered.write(out)
    if not written and not problems:
        keys = ", ".join(experiment.key for experiment in experiments)
        problems.append(
            f"error: {keys} cannot be drawn as {args.figure}; that needs "
            f"{FIGURES[args.figure].NEEDS}"
        )
    return written, problems


def _read_experiments(args: argparse.Namespace) -> list[Experiment]:
    """Read the experiments to draw."""
    name, needs = args.figure, FIGURES[args.figure].NEEDS
    if not args.results:
        raise ValueError(f"name a folder of results: --figure {name} needs {needs}")
    paths = [Path(path) for path in args.results]
    runs = [path for path in paths if is_work_folder(path)]
    if runs and not FIGURES[name].WORK_FOLDERS:
        raise ValueError(
            f"{runs[0]} is the work folder of a run; --figure {name} is drawn of a folder of "
            "results, which tools/reproduce.py writes"
        )
    folders = [path for path in paths if path not in runs]
    found = [e for folder in folders for e in read_results(folder, args.root).experiments]
    if args.experiment:
        known = {e.key: (e.key, e.record["name"]) for e in found}
        chosen = [e for e in found if not set(args.experiment).isdisjoint(known[e.key])]
        unknown = set(args.experiment).difference(*known.values())
        if unknown:
            keys = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no experiment {', '.join(sorted(unknown))} among {keys}")
        found = chosen
    return [*found, *([experiment_of_folders(runs)] if runs else [])]

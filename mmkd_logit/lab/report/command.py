"""Command line of the report and of single figures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_logit.utils.arguments import check_out_folder
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_bytes

from .data import Experiment, experiment_of_folders, is_work_folder, read_results
from .figures import FIGURES
from .page import build_report
from .page_figures import Names, draw, render_figure
from .style import Drawing


def draw_figure(
    name: str,
    paths: Sequence[str | Path],
    only: Sequence[str] = (),
    root: str | Path | None = None,
) -> tuple[list[Drawing], list[str]]:
    """Draw one of the figures, of every experiment that has what it needs.

    Args:
        name: Of :data:`FIGURES`.
        paths: Folders of results, and work folders of runs outside any experiment.
        only: Names of experiments; all by default.
        root: The folder that has the runs' files, if they were moved.

    Returns:
        The drawings, and why others could not be drawn.
    """
    figure = FIGURES[name]
    if not figure.NEEDS:
        return draw(figure, None), []
    experiments = _read(name, [Path(path) for path in paths], only, root)
    found, problems = list[Drawing](), list[str]()
    for experiment in experiments:
        try:
            found += draw(figure, experiment)
        except (ValueError, OSError) as error:
            problems.append(f"{experiment.key}: {error}")
    if not found and not problems:
        keys = ", ".join(experiment.key for experiment in experiments)
        problems.append(f"{keys} cannot be drawn as {name}; that needs {figure.NEEDS}")
    return found, problems


def _read(
    name: str, paths: Sequence[Path], only: Sequence[str], root: str | Path | None
) -> list[Experiment]:
    """Read the experiments to draw."""
    if not paths:
        raise ValueError(f"name a folder of results: --figure {name} needs {FIGURES[name].NEEDS}")
    runs = [path for path in paths if is_work_folder(path)]
    if runs and not FIGURES[name].WORK_FOLDERS:
        raise ValueError(
            f"{runs[0]} is the work folder of a run; {name} is drawn of a folder of results, which "
            "tools/reproduce.py writes"
        )
    folders = [path for path in paths if path not in runs]
    found = [e for folder in folders for e in read_results(folder, root).experiments]
    if only:
        known = {e.key: (e.key, e.record["name"].partition(" in ")[0]) for e in found}
        unknown = [each for each in only if not any(each in names for names in known.values())]
        if unknown:
            names = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no experiment {', '.join(unknown)} among {names}")
        found = [e for e in found if not set(only).isdisjoint(known[e.key])]
    return [*found, *([experiment_of_folders(runs)] if runs else [])]


def write_drawings(drawings: Sequence[Drawing], folder: str | Path) -> list[Path]:
    """Write figures as PNG and SVG."""
    written, stems = [], Names()
    for drawing in drawings:
        stem = stems(drawing.name)
        svg, png = render_figure(drawing, stem)
        for kind, content in (("png", png), ("svg", svg)):
            written.append(Path(folder, f"{stem}.{kind}"))
            write_bytes(written[-1], content)
    return written


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
    parser.add_argument("--figure", choices=FIGURES, help="draw this figure and write no page")
    parser.add_argument(
        "--experiment", nargs="+", default=[], metavar="NAME", help="of --figure: only these"
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="the page, default: RESULTS/report.html; of --figure a folder, default: "
        "RESULTS/figures, or figures",
    )
    parser.add_argument("--root", metavar="FOLDER", help="where the runs' files lie, if moved")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/report.py``."""
    args = build_parser().parse_args(argv)
    try:
        written, problems = _draw(args) if args.figure else _report(args)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    for problem in problems:
        print(" ".join(problem.split()), file=sys.stderr)
    for path in written:
        print(path)
    if args.figure and problems:
        raise SystemExit(1)


def _report(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    if len(args.results) != 1 or args.experiment:
        raise ValueError("the page is of one folder of results and all of its experiments")
    path, problems = build_report(args.results[0], args.out, args.root)
    return [path], problems


def _draw(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    if args.out is not None:
        check_out_folder("--out", args.out)
    drawings, problems = draw_figure(args.figure, args.results, args.experiment, args.root)
    folders = [path for path in args.results if not is_work_folder(Path(path))]
    out = args.out or (Path(folders[0], "figures") if folders else Path("figures"))
    return write_drawings(drawings, out), [f"error: {problem}" for problem in problems]

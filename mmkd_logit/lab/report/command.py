"""Command line of the report, of single figures, and of all measured cells as JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_logit.utils.arguments import check_out_file, check_out_folder
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_bytes, write_text

from .cells import measured_cells
from .data import ROWS, Experiment, experiment_of_folders, is_work_folder, read_results, read_rows
from .figures import FIGURES
from .page import build_report
from .page_figures import render_figures

Written = tuple[list[Path], list[str]]  # files, and what went wrong


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/report.py``."""
    parser = OneLineParser(
        description="Write one HTML file with every table and figure of a folder of results, one "
        "figure as PNG and SVG, or all measured cells as JSON"
    )
    parser.add_argument(
        "results",
        nargs="*",
        help="the folder that tools/reproduce.py wrote to; of some figures also work folders of "
        "runs outside any experiment; of --json also files of results rows",
    )
    add = parser.add_argument
    add("--figure", choices=list(FIGURES), help="draw this figure and write no page")
    add("--experiment", nargs="+", default=[], metavar="NAME", help="of --figure: only these")
    add(
        "--metric",
        nargs="+",
        default=[],
        metavar="KEY",
        help="of --figure: only these metrics of tables",
    )
    add("--json", action="store_true", help="print the mean over seeds of each setting instead")
    add(
        "--out",
        metavar="PATH",
        help="the page, the JSON, or of --figure the folder or one file NAME.svg or NAME.png; "
        "default: in RESULTS, JSON to stdout",
    )
    add("--root", metavar="FOLDER", help="where the runs' files lie, if moved")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/report.py``."""
    args = build_parser().parse_args(argv)
    try:
        write = _json if args.json else _figure if args.figure else _page
        written, problems = write(args)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    for problem in problems:
        print(" ".join(problem.split()), file=sys.stderr)
    for path in written:
        print(path)
    if args.figure and problems:
        raise SystemExit(1)


def _page(args: argparse.Namespace) -> Written:
    if len(args.results) != 1 or args.experiment or args.metric:
        raise ValueError("the page is of one folder of results and all of its experiments")
    path, problems = build_report(args.results[0], args.out, args.root)
    return [path], problems


def _json(args: argparse.Namespace) -> Written:
    if not args.results or args.figure or args.experiment or args.metric or args.root:
        raise ValueError("--json takes folders of results, or files of rows, and --out alone")
    paths = [Path(path, ROWS) if Path(path).is_dir() else Path(path) for path in args.results]
    rows, problems = list[dict](), list[str]()
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"the results rows {path} do not exist")
        found, wrong = read_rows(path)
        rows += found.values()
        problems += wrong
    text = json.dumps(measured_cells(rows), indent=1, ensure_ascii=False)
    if args.out is None:
        print(text)
        return [], problems
    check_out_file("--out", args.out)
    write_text(args.out, f"{text}\n", follow=True)
    return [Path(args.out)], problems


def _figure(args: argparse.Namespace) -> Written:
    name = args.figure
    out = Path(args.out) if args.out is not None else None
    single = out is not None and out.suffix in (".svg", ".png")
    if out is not None:
        (check_out_file if single else check_out_folder)("--out", out)
    experiments = _read_experiments(args) if FIGURES[name].NEEDS else []
    drawn, problems = [], []
    for experiment, rendered in render_figures(experiments, {name: FIGURES[name]}):
        if isinstance(rendered, str):
            problems.append(f"error: {experiment.key if experiment else 'no'}: {rendered}")
        else:
            drawn.append(rendered)
    if not drawn and not problems:
        keys = ", ".join(experiment.key for experiment in experiments)
        problems.append(
            f"error: {keys} cannot be drawn as {name}; that needs {FIGURES[name].NEEDS}"
        )
    if out is None or not single:
        folders = [path for path in args.results if not is_work_folder(Path(path))]
        folder = out or (Path(folders[0], "figures") if folders else Path("figures"))
        return [path for each in drawn for path in each.write(folder)], problems
    if len(drawn) > 1:
        titles = "; ".join(each.drawing.title for each in drawn)
        raise ValueError(f"--out {out} is one file for {len(drawn)} figures ({titles}); name a "
                         "folder, or one --experiment")  # fmt: skip
    for each in drawn:
        write_bytes(out, each.png if out.suffix == ".png" else each.svg, follow=True)
    return [out] * len(drawn), problems


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
        names = [{each.key, each.record["name"]} for each in found]
        _refuse_unknown("experiment", args.experiment, {each.key for each in found}, *names)
        found = [e for e, known in zip(found, names, strict=True) if known & set(args.experiment)]
    if args.metric:
        every = [metric for each in found for metric in each.record["metrics"]]
        _refuse_unknown("metric", args.metric, {metric["key"] for metric in every})
        for each in found:
            chosen = [m for m in each.record["metrics"] if m["key"] in args.metric]
            each.record["metrics"] = chosen
    return [*found, *([experiment_of_folders(runs)] if runs else [])]


def _refuse_unknown(what: str, given: list[str], known: set[str], *more: set[str]) -> None:
    unknown = sorted(set(given).difference(known, *more))
    if unknown:
        listed = ", ".join(sorted(known)) or "none"
        raise ValueError(f"no {what} {', '.join(unknown)} among {listed}")

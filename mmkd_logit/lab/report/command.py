"""Command lines of single figures."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_logit.utils.arguments import check_out_folder
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_bytes

from .data import ExperimentFile, experiment_of_folders, is_work_folder, read_experiment_files
from .page_figures import Names, render_figure
from .style import Drawing, style

# Modules with ``draw(experiment) -> list[Drawing]``: none for another kind of experiment.
PARTS = (
    "grid",
    "logit_sums",
    "distances",
    "templates",
    "label_noise",
    "calibration",
    "learning_curves",
    "class_sums",
)


def draw_all(
    experiments: Sequence[ExperimentFile], root: Path | None = None, notes: list[str] | None = None
) -> list[Drawing]:
    """Draw all figures."""
    drawings: list[Drawing] = []
    with style():
        for experiment in experiments:
            for name in PARTS:
                drawings += _draw(name, (experiment,), f"{experiment.path}, ", notes)
        drawings += _draw("losses", (), "", notes)
    return drawings


def _draw(name: str, given: tuple, where: str, notes: list[str] | None) -> list[Drawing]:
    """Draw one part; where somebody takes notes, a part that fails takes no other with it."""
    try:
        return importlib.import_module(f"{__package__}.figures.{name}").draw(*given)
    except Exception as error:
        if notes is None:
            raise
        text = " ".join(str(error).split())
        known = isinstance(error, (ValueError, OSError))
        what = text if known else f"{type(error).__name__}: {text}"
        notes.append(f"{where}figure {name}: {what}")
        return []


# ``tools/analysis/*.py``: one figure of a folder of results, or of runs outside any experiment.


_LOGITS = "the logits of students by KL or MSE, which --dump-logits keeps"
# By the module: what is drawn, and what it needs.
FIGURES = {
    "grid": ("accuracy over alpha and tau", "an experiment with several alphas, such as grid"),
    "logit_sums": ("sums of logits", _LOGITS),
    "distances": ("distances to the teacher", _LOGITS),
    "templates": ("pre-logits of three classes", _LOGITS),
    "label_noise": (
        "accuracy against tau under label noise",
        "an experiment with several tau on wrong labels, such as noisy-label",
    ),
    "calibration": ("calibration and top-logit differences", _LOGITS),
    "learning_curves": ("learning curves", "finished runs with their vis_data/scalars.json"),
    "losses": ("the losses against tau", "nothing"),
    "class_sums": (
        "the last layer's sum over classes in training",
        "runs by MSE beside others, with their vis_data/scalars.json",
    ),
}
_FOLDERS = ("logit_sums", "distances", "templates", "calibration", "learning_curves", "class_sums")


def draw_figure(
    name: str,
    paths: Sequence[str | Path],
    only: Sequence[str] = (),
    root: str | Path | None = None,
) -> tuple[list[Drawing], list[str]]:
    """Draw one of the figures, of every experiment that allows it."""
    part = importlib.import_module(f"{__package__}.figures.{name}")
    with style():
        if name == "losses":
            return part.draw(), []
        experiments = _read(name, [Path(path) for path in paths], only, root)
        found, problems = list[Drawing](), list[str]()
        for experiment in experiments:
            try:
                found += part.draw(experiment)
            except (ValueError, OSError) as error:
                problems.append(f"{experiment.key}: {error}")
    if not found and not problems:
        problems.append(
            f"nothing of {', '.join(e.key for e in experiments)} can be drawn as "
            f"{FIGURES[name][0]}; that needs {FIGURES[name][1]}"
        )
    return found, problems


def _read(
    name: str, paths: Sequence[Path], only: Sequence[str], root: str | Path | None
) -> list[ExperimentFile]:
    """Read the experiments that shall be drawn."""
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"the folder {path} does not exist")
    runs = [path for path in paths if is_work_folder(path)]
    if runs and name not in _FOLDERS:
        raise ValueError(
            f"{runs[0]} is the work folder of a run; {FIGURES[name][0]} is drawn of a folder of "
            "results, which tools/reproduce.py writes"
        )
    found = [
        experiment
        for path in paths
        if path not in runs
        for experiment in read_experiment_files(path, root)
    ]
    if only:
        known = sorted({experiment.key for experiment in found})
        strange = [n for n in only if not any(n in (key, key.split("/")[-1]) for key in known)]
        if strange:
            raise ValueError(
                f"no experiment {', '.join(strange)} among {', '.join(known) or 'none'}"
            )
        found = [e for e in found if e.key in only or e.record["name"] in only]
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


def build_parser(name: str) -> argparse.ArgumentParser:
    """Return the command line of a figure."""
    what, needs = FIGURES[name]
    parser = OneLineParser(description=f"Draw {what} as PNG and SVG; needs {needs}")
    if name != "losses":
        runs = ", or work folders of runs outside any experiment" if name in _FOLDERS else ""
        parser.add_argument(
            "paths",
            nargs="+",
            metavar="RESULTS",
            help=f"folder of results that tools/reproduce.py wrote{runs}",
        )
        parser.add_argument(
            "--experiment", nargs="+", default=[], metavar="NAME", help="only these; default: all"
        )
        parser.add_argument("--root", metavar="FOLDER", help="where the runs' files lie, if moved")
    parser.add_argument(
        "--out", metavar="FOLDER", help="for the pictures; default: RESULTS/figures, or figures"
    )
    return parser


def main(name: str, argv: Sequence[str] | None = None) -> None:
    """Run ``tools/analysis/{name}.py``."""
    args = build_parser(name).parse_args(argv)
    told = vars(args)
    paths = told.get("paths", [])
    try:
        if args.out is not None:
            check_out_folder("--out", args.out)
        drawings, problems = draw_figure(name, paths, told.get("experiment", ()), told.get("root"))
        out = args.out
        if out is None:
            results = [path for path in paths if not is_work_folder(Path(path))]
            out = Path(results[0], "figures") if results else Path("figures")
        for path in write_drawings(drawings, out):
            print(path)
    except (ValueError, OSError) as error:
        problems = [str(error)]
    for problem in problems:
        print(f"error: {' '.join(problem.split())}", file=sys.stderr)
    if problems:
        raise SystemExit(1)

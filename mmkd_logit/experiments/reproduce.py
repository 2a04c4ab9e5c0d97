"""``tools/reproduce.py``: run what an exhibit still needs and print its table."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmkd_logit.engine.errors import one_line_errors
from mmkd_logit.engine.launch import silence_known_warnings

from .execute import run_missing
from .exhibit import Exhibit
from .table import render

EXHIBITS = Path("configs", "paper")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/reproduce.py``."""
    parser = argparse.ArgumentParser(
        description="Train what an exhibit still needs, skip what is done, print its table"
    )
    parser.add_argument("exhibit", help=f"name of a file in {EXHIBITS}, such as digits")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, 0, 1, 2 ...")
    parser.add_argument("--results", default="results", help="folder of the results files")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="overrides for every run, marked in the table",
    )
    return parser


def _find(name: str) -> Path:
    path = EXHIBITS / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in EXHIBITS.glob("*.py"))) or "none here"
        raise ValueError(
            f"no exhibit {name!r} in {EXHIBITS} (known: {known}); run from the project's folder"
        )
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/reproduce.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    args = build_parser().parse_args(argv)
    silence_known_warnings()
    with one_line_errors():
        if args.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
        exhibit = Exhibit(_find(args.exhibit), tuple(args.cfg_options))
        results = Path(args.results, exhibit.name, "runs.jsonl")

        def say(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        found = run_missing(exhibit, list(range(args.seeds)), results, say)
        print(render(exhibit, found), flush=True)
        if None in found.values():
            raise SystemExit(1)

"""``tools/benchmark.py``: measure cost and accuracy on this machine."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkd_logit.engine.errors import one_line_errors
from mmkd_logit.engine.provenance import describe_machine

from .loss_table import error_rows, render_errors, render_speed, speed_rows


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/benchmark.py``."""
    parser = argparse.ArgumentParser(
        description="Measure cost and accuracy on this machine; tables on standard output"
    )
    parser.add_argument("--losses", action="store_true", help="time the KL loss beside F.kl_div")
    parser.add_argument("--compile", action="store_true", help="with --losses, compiled as well")
    parser.add_argument(
        "--error-table", action="store_true", help="rounding errors of both, by dtype and tau"
    )
    parser.add_argument(
        "--tau", type=float, nargs="+", default=[4.0], help="temperatures to time, above 0"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="time to spend on each row")
    parser.add_argument("--device", default="cpu", help="where to time: cpu, cuda ...")
    parser.add_argument("--json", metavar="FILE", help="write rows and machine here as well")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/benchmark.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    args = build_parser().parse_args(argv)
    with one_line_errors():
        if not (args.losses or args.error_table):
            raise ValueError("nothing to measure: give --losses, --error-table or both")
        if args.compile and not args.losses:
            raise ValueError("--compile goes with --losses")
        found: dict[str, Any] = {}
        if args.losses:
            found["speed"] = _speed(args)
            print(render_speed(found["speed"]), flush=True)
        if args.error_table:
            found["errors"] = error_rows(say=_say)
            print(render_errors(found["errors"]), flush=True)
        if args.json:
            text = json.dumps(dict(machine=describe_machine(), **found), indent=2)
            Path(args.json).write_text(text + "\n")


def _speed(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for compiled in (False, True) if args.compile else (False,):
        for tau in args.tau:
            if not 0 < tau < float("inf"):
                raise ValueError(f"--tau must be a finite number above 0, got {tau}")
            rows += speed_rows(
                tau=tau, compiled=compiled, device=args.device, seconds=args.seconds, say=_say
            )
    return rows


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""``tools/benchmark.py``."""

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.device import get_device

from mmkd_logit.engine.config import add_override_argument
from mmkd_logit.engine.fingerprint import describe_machine
from mmkd_logit.engine.launch import running_tool
from mmkd_logit.utils.arguments import check_number, check_out_file, first_line
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_text


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/benchmark.py``."""
    parser = OneLineParser(
        description="Measure cost and accuracy on this machine; tables on standard output"
    )
    parser.add_argument("config", nargs="?", help="a kd config, to time its training")
    add_override_argument(parser, "--cfg-options", "override settings of the config")
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help="which ways to train it; all by default"
    )
    parser.add_argument("--batch-size", type=int, help="instead of the config's")
    parser.add_argument(
        "--workers",
        type=int,
        help="data workers of bare and torchdistill; by default none on a CPU, where they would "
        "share cores with the training, and up to 8 on a GPU",
    )
    parser.add_argument(
        "--synthetic",
        type=int,
        nargs="?",
        const=2048,
        metavar="N",
        help="N random images (2048) instead of the config's data; takes far less memory: every "
        "variant holds the data, and every cache of all views of CIFAR-100 3.2 GB",
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="also train with 1, 2 and 4 teachers, and with 100, 1,000 and 21,841 classes",
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
    parser.add_argument(
        "--device", help="where to time: cpu, cuda ...; a config trains on a GPU if there is one"
    )
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--json", metavar="FILE", help="write rows and machine here as well")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/benchmark.py``."""
    args = build_parser().parse_args(argv)
    with running_tool():
        _check(args)
        if args.threads is not None:
            torch.set_num_threads(args.threads)
        machine = dict(describe_machine(), threads=torch.get_num_threads(), load=os.getloadavg()[0])
        found: dict[str, Any] = dict(machine=machine)
        if args.losses or args.error_table:
            from .losses import measure_losses

            found |= measure_losses(args)
        if args.config:
            from .speed import measure_config, render

            found |= measure_config(args)
            print(render(found), flush=True)
        if args.json:
            write_text(args.json, json.dumps(found) + "\n", follow=True)


def _check(args: argparse.Namespace) -> None:
    if not (args.losses or args.error_table or args.config):
        raise ValueError("nothing to measure: give a kd config, --losses or --error-table")
    if args.json:
        check_out_file("--json", args.json)
    if args.compile and not args.losses:
        raise ValueError("--compile goes with --losses")
    for name in ("variants", "growth"):
        if getattr(args, name) and not args.config:
            raise ValueError(f"--{name} needs a config to train")
    if args.workers is not None and args.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {args.workers}")
    check_number("--seconds", args.seconds)
    for tau in args.tau:
        check_number("--tau", tau, zero=False)
    _check_device(args.device)
    for name in ("threads", "batch_size", "synthetic"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.config and args.device not in (None, get_device()):
        raise ValueError(
            f"MMEngine trains on {get_device()} here, not on {args.device}; "
            "CUDA_VISIBLE_DEVICES= hides the GPUs"
        )


def _check_device(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.empty(1, device=device)
    except Exception as error:  # of torch, which has many
        raise ValueError(
            f"--device {device} cannot be used here ({first_line(error)}); take cpu"
            + (" or cuda" if torch.cuda.is_available() else "")
        ) from None

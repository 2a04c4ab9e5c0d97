"""``tools/test.py``: test a checkpoint."""

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.utils import apply_to

from mmkd_logit.checkpoint import existing, install_safe_checkpoint_loading
from mmkd_logit.hooks import LogitOutputsHook
from mmkd_logit.hooks.sequential_teacher import use_last_stage
from mmkd_logit.registry import METRICS
from mmkd_logit.utils.arguments import check_out_file, type_name
from mmkd_logit.utils.cli import OneLineParser

from .check import check_config
from .config import (
    add_common_arguments,
    apply_common_arguments,
    find_missing_teachers,
    read_config,
    teachers_of,
)
from .launch import prepare_launch, running_tool
from .results import plain
from .runner import ExactRunner
from .save import ATOMIC


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/test.py``: mmpretrain's flags."""
    parser = OneLineParser(description="Test a checkpoint; a distilling config tests its student")
    parser.add_argument("config", help="config file, or mmpretrain::PATH")
    parser.add_argument("checkpoint", help="checkpoint file or URL")
    add_common_arguments(parser)
    parser.add_argument("--out", help="file for the results (.json, .yaml, .pkl)")
    parser.add_argument(
        "--out-item", choices=["metrics", "pred"], help="what goes there; predictions by default"
    )
    parser.add_argument("--show-dir", help="folder for pictures of the predictions")
    parser.add_argument("--show", action="store_true", help="show the predictions in a window")
    parser.add_argument("--interval", type=int, default=1, help="every how many samples")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds a window is shown")
    parser.add_argument(
        "--tta", action="store_true", help="test-time augmentation, flip by default"
    )
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line into the config it names."""
    if args.out_item is not None and args.out is None:
        raise ValueError("--out-item says what to write; add --out FILE to say where")
    suffix = Path(args.out).suffix if args.out else None
    allowed = (".json", ".yaml", ".yml", ".pkl") if args.out_item == "metrics" else (".pkl",)
    if args.out and suffix not in allowed:
        raise ValueError(
            f"--out {args.out}: {args.out_item or 'pred'} can be written to {', '.join(allowed)}"
        )
    if args.out:
        check_out_file("--out", args.out)
    if args.interval < 1 or args.wait_time < 0:
        raise ValueError(
            "--interval is a number of samples from 1 on and --wait-time one of seconds from 0 on, "
            f"got {args.interval} and {args.wait_time:g}"
        )
    if "://" not in args.checkpoint:
        existing(args.checkpoint)
    cfg = read_config(args.config)
    if cfg.get("test_dataloader") is None or cfg.get("test_evaluator") is None:
        raise ValueError(f"{args.config} has no test_dataloader or test_evaluator")
    apply_common_arguments(cfg, args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if cfg.get("test_cfg") is None:
        cfg.test_cfg = ConfigDict()
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        hook = cfg.get("default_hooks", {}).get("visualization")
        if hook is None:
            raise ValueError(
                "--show needs default_hooks.visualization=dict(type='VisualizationHook')"
            )
        hook.update(
            enable=True,
            show=args.show,
            wait_time=args.wait_time,
            out_dir=args.show_dir,
            interval=args.interval,
        )
    if args.tta:
        _use_test_time_augmentation(cfg)
    _leave_missing_teachers_alone(cfg)
    prepare_launch(cfg, args.launcher)
    if not args.tta:  # which wraps the model
        check_config(cfg)
    return cfg


def _leave_missing_teachers_alone(cfg: Config) -> None:
    """Measure the student alone where its teacher is missing or cannot be downloaded."""
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])]
    comparing = [hook for hook in hooks if type_name(hook) == "LogitOutputsHook"]
    why = "it is not there" if find_missing_teachers(cfg) else None
    for teacher in teachers_of(cfg).values() if comparing and not why else ():
        address = teacher.checkpoint
        if isinstance(address, str) and teacher.file is None:
            try:
                CheckpointLoader.load_checkpoint(address, map_location="cpu", logger="silent")
            except OSError as error:
                why = str(error)
    if comparing and why:
        for hook in comparing:
            hook["teacher"] = False
        print(f"nothing is compared with the teacher: {why}", file=sys.stderr)


def _use_test_time_augmentation(cfg: Config) -> None:
    if isinstance(cfg.test_evaluator, (list, tuple)):
        # Joining the predictions of several pictures leaves probabilities, and no logits.
        cfg.test_evaluator = [m for m in cfg.test_evaluator if not _needs_logits(m)]
    dataset = cfg.test_dataloader.dataset
    while "pipeline" not in dataset:
        dataset = dataset.dataset
    if "tta_pipeline" not in cfg:
        *before, pack = copy.deepcopy(dataset.pipeline)
        flips = [dict(type="RandomFlip", prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [*before, dict(type="TestTimeAug", transforms=[flips, [pack]])]
    wrapper = cfg.get("tta_model", dict(type="mmpretrain.AverageClsScoreTTA"))
    cfg.model = ConfigDict(**wrapper, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def _needs_logits(metric: Any) -> bool:
    kind = metric["type"]
    found = METRICS.get(kind) if isinstance(kind, str) else kind
    return getattr(found, "needs_logits", False) or metric.get("of") == "teacher"


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/test.py``."""
    args = build_parser().parse_args(argv)
    with running_tool():
        cfg = build_config(args)
        install_safe_checkpoint_loading()
        hooks = list(cfg.get("custom_hooks") or [])
        cfg.custom_hooks = [*hooks, dict(type="mmkd_logit.PreflightHook")]
        runner = ExactRunner.from_cfg(cfg)
        asked = (h.teacher for h in runner.hooks if isinstance(h, LogitOutputsHook))
        if any(asked) and not args.tta:
            use_last_stage(runner)
        if args.out and args.out_item != "metrics":
            runner.test_evaluator.metrics.append(_DumpWhole(out_file_path=args.out))
        metrics = runner.test()
        if args.out and args.out_item == "metrics" and is_main_process():
            _dump(plain(metrics), args.out)


class _DumpWhole(DumpResults):
    """MMEngine's, whose file appears whole or not at all and holds each sample's numbers alone."""

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keep copies: a view of a batch would be saved with the whole batch."""
        self.results += apply_to(list(predictions), torch.is_tensor, lambda t: t.cpu().clone())

    def compute_metrics(self, results: list) -> dict:
        """Write the file, in a protocol of pickle that knows bytes."""
        _dump(results, self.out_file_path, protocol=4)
        print_log(f"Results has been saved to {self.out_file_path}.", "current")
        return {}


def _dump(content: Any, out: str, **kwargs: Any) -> None:
    backend = None if "://" in out else dict(backend=ATOMIC)  # an object store has no halves
    mmengine.dump(content, out, backend_args=backend, **kwargs)

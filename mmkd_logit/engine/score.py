"""``tools/score_samples.py``: how sure a teacher is of each training sample."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tqdm import tqdm

from mmkd_logit.checkpoint import existing, install_safe_checkpoint_loading, install_safe_reading
from mmkd_logit.utils.arguments import check_out_file
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import replacing

from .cli import one_line_errors
from .config import add_common_arguments, apply_common_arguments, read_config
from .config_check import check_config
from .launch import prepare_launch, silence_known_warnings
from .results import training_data_loader


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/score_samples.py``."""
    parser = OneLineParser(
        description="Write a teacher's entropy and top-logit difference for each training sample; "
        "mmkd_logit.DataSubset selects by them"
    )
    parser.add_argument("config", help="the teacher's config; a distilling one means its student")
    parser.add_argument("checkpoint", help="the teacher's checkpoint file or URL")
    parser.add_argument("out", help="file to write, .npz")
    add_common_arguments(parser)
    return parser


def build_config(args: argparse.Namespace) -> Config:
    """Merge the command line into the config it names, and take the test data's transforms."""
    if Path(args.out).suffix != ".npz":
        raise ValueError(f"{args.out} must end in .npz")
    check_out_file("the scores", args.out)
    if args.launcher != "none":
        raise ValueError("scores are computed by one process; leave out --launcher")
    if args.amp:
        raise ValueError("scores are computed in full precision; leave out --amp")
    if "://" not in args.checkpoint:
        existing(args.checkpoint)
    cfg = read_config(args.config)
    apply_common_arguments(cfg, args)
    for name in ("train_dataloader", "test_dataloader"):
        if not isinstance((cfg.get(name) or {}).get("dataset"), dict):
            raise ValueError(f"{args.config} has no {name} with a dataset")
    check_config(cfg)
    cfg.test_dataloader = training_data_loader(cfg)
    cfg.test_dataloader.update(sampler=dict(type="DefaultSampler", shuffle=False), drop_last=False)
    prepare_launch(cfg, "none")
    return cfg


def compute_scores(cfg: Config, checkpoint: str) -> dict[str, np.ndarray]:
    """Run the teacher over the training samples."""
    from mmkd_logit.models import FrozenTeacher  # its imports warn, once we silence it

    init_default_scope(cfg.get("default_scope") or "mmpretrain")
    teacher = FrozenTeacher(dict(config=cfg.to_dict(), checkpoint=checkpoint))
    teacher.build()
    preprocessor = getattr(teacher.model, "data_preprocessor", None)
    if preprocessor is None:
        raise ValueError("the network has no data_preprocessor to normalise the images with")
    device = get_device()
    teacher.model.to(device)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    rows: dict[str, list[Any]] = {}
    for batch in tqdm(loader, unit="batch", disable=None):
        data = preprocessor(batch, False)
        logits = teacher(data["inputs"]).double().cpu()
        for name, values in score_batch(logits, data["data_samples"]).items():
            rows.setdefault(name, []).append(values)
    scores = {name: np.concatenate(values) for name, values in rows.items()}
    if len(np.unique(scores["index"])) < len(scores["index"]):
        raise ValueError("a sample came twice: one could not be read and another took its place")
    for name in ("entropy", "tld"):
        bad = np.flatnonzero(~np.isfinite(scores[name]))
        if len(bad):
            raise ValueError(
                f"{name} of sample {scores['index'][bad[0]]} is {scores[name][bad[0]]}, as the "
                f"logits of {checkpoint} are not finite; take an earlier checkpoint"
            )
    return scores


def score_batch(logits: torch.Tensor, samples: list) -> dict[str, np.ndarray]:
    """Score N samples."""
    for sample in samples:
        if "gt_label" not in sample or "sample_idx" not in sample:
            raise ValueError(
                "a sample has no gt_label or no sample_idx; the transforms for testing must end "
                "in PackInputs with its usual meta_keys"
            )
    labels = torch.cat([sample.gt_label.cpu() for sample in samples])
    if len(labels) != len(logits) or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels up to {int(labels.max())} do not fit a network of {logits.shape[1]} classes"
        )
    column = labels[:, None]
    others = logits.scatter(1, column, -torch.inf).amax(1)
    return dict(
        index=np.array([int(sample.sample_idx) for sample in samples], dtype=np.int64),
        label=labels.numpy(),
        clean_label=np.array(
            [int(sample.get("clean_label", sample.gt_label)) for sample in samples], dtype=np.int64
        ),
        entropy=torch.special.entr(logits.softmax(1)).sum(1).numpy(),
        tld=(logits.gather(1, column)[:, 0] - others).numpy(),
    )


def write_scores(path: str | Path, scores: dict[str, np.ndarray]) -> None:
    """Write the arrays; the file appears whole or not at all."""
    with replacing(path) as file:
        np.savez_compressed(file, **scores)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/score_samples.py``."""
    args = build_parser().parse_args(argv)
    with one_line_errors():
        silence_known_warnings()
        install_safe_reading()
        cfg = build_config(args)
        install_safe_checkpoint_loading()
        scores = compute_scores(cfg, args.checkpoint)
        write_scores(args.out, scores)
        right = (scores["tld"] > 0).mean()
        print(
            f"{args.out}: {len(scores['index'])} samples, entropy {scores['entropy'].mean():.4f} "
            f"on average, top-logit difference {scores['tld'].mean():.4f}, {right:.2%} right"
        )

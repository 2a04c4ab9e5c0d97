"""Dumping the logits of a run's samples with its Runner."""

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner, TestLoop

from mmkd_logit._arguments import type_name

from .dump_files import FOLDER, identity_of, is_current
from .fingerprint import weights_hash
from .provenance import dataset_hash
from .teachers import FINAL
from .train_metrics import training_data_loader


def prepare_dumps(cfg: Config, splits: Sequence[str]) -> None:
    """Make sure that a run can dump its logits when it has ended.

    Args:
        cfg: Its complete config; made to leave ``final.pth``.
        splits: Those wanted.

    Raises:
        ValueError: If the data of one cannot be read.
    """
    for split in splits:
        loader_of(cfg, split)
    hooks = list(cfg.get("custom_hooks") or [])
    if not any(
        type_name(hook) == "FinalCheckpointHook" and hook.get("filename", FINAL) == FINAL
        for hook in hooks
    ):
        cfg.custom_hooks = [*hooks, dict(type="mmkd_logit.FinalCheckpointHook")]


def loader_of(cfg: Config, split: str) -> dict[str, Any]:
    """Return the config of a loader that gives each sample of a split once, un-augmented.

    Args:
        cfg: A complete config.
        split: ``'train'`` (the images under the test images' transforms, with their noisy
            labels), ``'val'`` or ``'test'``.

    Raises:
        ValueError: If the config has no such data, or one that cannot be read so.
    """
    needed = (
        ("train_dataloader", "test_dataloader") if split == "train" else (f"{split}_dataloader",)
    )
    for name in needed:
        if not isinstance((cfg.get(name) or {}).get("dataset"), dict):
            raise ValueError(
                f"logits of the {split} split need {name} with a dataset in the config"
            )
    if split == "train":
        loader = training_data_loader(cfg)
    else:
        loader = copy.deepcopy(cfg[f"{split}_dataloader"].to_dict())
    loader.update(sampler=dict(type="DefaultSampler", shuffle=False), drop_last=False)
    return loader


def dump_logits(
    runner: Runner,
    splits: Sequence[str],
    folder: str | Path,
    checkpoint: str,
    config: str,
    origin: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> list[str]:
    """Write the files that are not there yet, of these weights and this data.

    Args:
        runner: Of the run or of its config; gets the weights of the checkpoint.
        splits: Those wanted.
        folder: For ``SPLIT.npz``.
        checkpoint: Its path or URL.
        config: The config file.
        origin: Of :func:`origin_of`.
        machine: Of :func:`describe_machine`.

    Returns:
        The splits that were written.

    Raises:
        ValueError: If the checkpoint is of another network, or a sample is missing.
        OSError: If a file cannot be read or written.
    """
    weights, written, loaded = weights_hash(checkpoint) or checkpoint, [], False
    with _only_watching(runner):
        for split in splits:
            loop = _loop(runner, split)
            more = dict(data=dataset_hash(loop.dataloader.dataset), **machine)
            identity = identity_of(runner.cfg, config, origin, weights, split, more)
            path = Path(folder, f"{split}.npz")
            if _agree(is_current(path, identity)):
                continue
            if not loaded:
                _load(runner, checkpoint)
                loaded = True
            count = len(loop.dataloader.dataset)
            runner.logger.info(f"Writing the logits of {count} samples ({split}) to {path}")
            _run(runner, loop, path, identity)
            written.append(split)
    return written


def dump_run(
    runner: Runner,
    args: argparse.Namespace,
    origin: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> list[str]:
    """Do what ``--dump-logits`` says, if it was given, with the weights of ``final.pth``.

    Args:
        runner: After training.
        args: The run's parsed command line.
        origin: Of :func:`origin_of`, from before training.
        machine: Of :func:`describe_machine`, from then too.

    Returns:
        As of :func:`dump_logits`.

    Raises:
        ValueError: As of :func:`dump_logits`.
        OSError: As of :func:`dump_logits`.
    """
    if args.dump_logits is None:
        return []
    final, folder = Path(runner.work_dir, FINAL), Path(runner.work_dir, FOLDER)
    return dump_logits(runner, args.dump_logits, folder, str(final), args.config, origin, machine)


@contextmanager
def _only_watching(runner: Runner) -> Iterator[None]:
    """Show all logits, log no metrics again, and let no hook exchange the weights."""
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.hooks import LogitOutputsHook

    hooks, test_loop = runner._hooks, runner._test_loop
    others = [h for h in hooks if not isinstance(h, (LogitOutputsHook, LoggerHook, EMAHook))]
    runner._hooks = [*others, LogitOutputsHook(prelogits="all")]
    try:
        yield
    finally:
        runner._hooks, runner._test_loop = hooks, test_loop


def _loop(runner: Runner, split: str) -> TestLoop:
    fp16 = bool((runner.cfg.get("test_cfg") or {}).get("fp16"))
    loader = loader_of(runner.cfg, split)
    return TestLoop(runner, dataloader=loader, evaluator=Evaluator([]), fp16=fp16)


def _run(runner: Runner, loop: TestLoop, path: Path, identity: Mapping[str, Any]) -> None:
    from mmkd_logit.metrics import LogitDump

    dump = LogitDump(str(path), identity, layers=lambda: _layers(network_of(runner)))
    evaluator = Evaluator([dump])
    evaluator.dataset_meta = getattr(loop.dataloader.dataset, "metainfo", None)
    loop.evaluator = evaluator
    runner._test_loop = loop
    loop.run()


def network_of(runner: Runner) -> Any:
    """Return a run's network without the wrapper of several processes.

    Args:
        runner: Of a plain model or a distiller.
    """
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _layers(network: Any) -> dict[str, np.ndarray]:
    """Return the last linear layer of a student and of its one teacher."""
    from mmkd_logit.hooks._watched import last_linear

    networks = {"": network}
    teachers = getattr(network, "teachers", None) or []
    if len(teachers) == 1 and network.needs_teacher:
        networks["teacher_"] = teachers[0].model
    found = {}
    for prefix, each in networks.items():
        layer = last_linear(each)
        for name in ("weight", "bias"):
            values = getattr(layer, name, None)
            if values is not None:
                found[prefix + name] = values.detach().float().cpu().numpy()
    return found


def _load(runner: Runner, checkpoint: str) -> None:
    """Give the network a checkpoint's weights, all of them."""
    from mmkd_logit.models._feature_adapters import without_adapters

    content = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = without_adapters({key.removeprefix("module."): v for key, v in state.items()})
    try:
        result = network_of(runner).load_state_dict(state, strict=False)
    except (RuntimeError, AttributeError) as error:  # sizes differ, or these are no tensors
        raise ValueError(f"{checkpoint} does not fit the config's network: {error}") from None
    # BatchNorm's counter is not used in evaluation and missing from old checkpoints.
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"{checkpoint} does not fit the config's network: missing keys {missing or 'none'}, "
            f"unexpected keys {list(result.unexpected_keys) or 'none'}"
        )


def _agree(value: bool) -> bool:
    """Let the first process decide for all: another may look while it writes."""
    values = [value]
    broadcast_object_list(values)
    return values[0]

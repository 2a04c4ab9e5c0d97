"""Chains: the student of each stage teaches the next."""

import argparse
import copy
import gc
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process

from .config import default_work_dir, read_config
from .provenance import origin_of, read_origin
from .teachers import FINAL, model_teachers

_STAGE_FIELDS = {"config", "overrides"}


class Stage(NamedTuple):
    """One run of a chain.

    Attributes:
        config: The config file.
        work_dir: The folder of the run.
        words: What ``tools/train.py`` would be given for this stage alone.
    """

    config: str
    work_dir: str
    words: list[str]


def is_chain(path: str) -> bool:
    """Whether a config file lists the stages of a chain.

    Args:
        path: Of any config.
    """
    if path.startswith("mmpretrain::") or not Path(path).is_file() or Path(path).suffix != ".py":
        return False
    return "stages" in Path(path).read_text() and "stages" in Config.fromfile(path)


def read_chain(args: argparse.Namespace) -> list[Stage]:
    """Read a chain config: ``stages``, a list of dicts.

    A stage has ``config``, a plain or a distilling config, and ``overrides``, settings of it as
    on the command line. From the second stage on it must be a distilling config with one
    teacher, which is replaced by the student of the stage before. ``--cfg-options`` of the
    command line hold for every stage.

    Args:
        args: Of ``tools/train.py``.

    Returns:
        The stages. They write to ``WORK_DIR/1_CONFIG``, ``WORK_DIR/2_CONFIG`` and so on, where
        ``WORK_DIR`` is ``--work-dir`` or ``work_dirs/CHAIN/seedK``.

    Raises:
        ValueError: If a stage is not written like that, or a flag does not go with a chain.
        FileNotFoundError: If a stage's config does not exist.
    """
    if args.resume not in (None, "auto"):
        raise ValueError("a chain finds its own checkpoints; --resume takes no file here")
    chain = Config.fromfile(args.config)
    stages = chain.stages
    if not isinstance(stages, (list, tuple)) or not stages:
        raise ValueError(f"{args.config}: stages must be a list of dict(config=...)")
    unknown = set(chain) - {"stages", "randomness", "work_dir"}
    if unknown:
        raise ValueError(f"{args.config}: a chain has stages only, got also {sorted(unknown)}")
    seed = args.seed
    if seed is None:
        seed = (chain.get("randomness") or {}).get("seed", 0)
    folder = Path(args.work_dir or chain.get("work_dir") or default_work_dir(args.config, seed))
    result: list[Stage] = []
    for number, stage in enumerate(stages, 1):
        result.append(_read_stage(f"{args.config}, stage {number}", stage, folder, result, seed))
    return result


def _read_stage(where: str, stage: Any, folder: Path, before: list[Stage], seed: int) -> Stage:
    if not isinstance(stage, dict) or not stage.get("config"):
        raise ValueError(f"{where} must be dict(config='PATH'), got {stage!r}")
    if set(stage) - _STAGE_FIELDS:
        raise ValueError(f"{where} takes config and overrides, got {sorted(stage)}")
    config = stage["config"]
    overrides = list(stage.get("overrides", ()))
    if before:
        specs = model_teachers(read_config(config))
        if len(specs) != 1 or not isinstance(specs[0], dict):
            raise ValueError(
                f"{where}: {config} must be a distilling config with one teacher, "
                "dict(config=..., checkpoint=...), which the stage before becomes"
            )
        overrides += [
            f"model.teacher.config={before[-1].config}",
            f"model.teacher.checkpoint={Path(before[-1].work_dir, FINAL)}",
        ]
    work_dir = str(folder / f"{len(before) + 1}_{Path(config).stem}")
    words = [config, "--seed", str(seed), "--work-dir", work_dir]
    return Stage(config, work_dir, words + ["--cfg-options", *overrides] * bool(overrides))


def run_chain(
    args: argparse.Namespace,
    parse: Callable[[list[str]], argparse.Namespace],
    build: Callable[[argparse.Namespace], Config],
    run: Callable[[argparse.Namespace, Config], None],
) -> None:
    """Train the stages of a chain that are not finished, in order.

    A stage is finished when its ``final.pth`` is there and ``origin.json`` says that it was made
    from the present config, seed and teacher. A stage that was cut off goes on from its last
    checkpoint. A stage whose config or teacher has changed is trained anew, and so are those
    behind it.

    Args:
        args: Of ``tools/train.py``.
        parse: Parses the words of a stage.
        build: Makes a stage's config.
        run: Trains a stage.

    Raises:
        ValueError: As of :func:`read_chain`, or of a stage; nothing has been trained then.
        FileNotFoundError: If a stage's config does not exist.
    """
    stages = read_chain(args)
    parsed = [_stage_arguments(args, parse(stage.words)) for stage in stages]
    for stage_args in parsed:
        build(copy.deepcopy(stage_args))  # what is wrong with the last is known before the first
    for number, (stage, stage_args) in enumerate(zip(stages, parsed, strict=True), 1):
        name = f"stage {number} of {len(stages)}, {Path(stage.config).stem}"
        cfg = build(stage_args)
        state = _agree(_state_of(stage, cfg))
        if state == "finished":
            _say(f"{name}: finished before, {stage.work_dir}/{FINAL}")
            continue
        what = {
            "cut off": "goes on",
            "new": "starts",
            "changed": "starts anew, since its config or teacher is not that of "
            f"{stage.work_dir}; later stages follow",
        }[state]
        _say(f"{name}: {what}: python tools/train.py {shlex.join(stage.words)}")
        if state == "changed" and is_main_process():
            Path(stage.work_dir, FINAL).unlink(missing_ok=True)
        cfg.experiment_name = f"{Path(stage.config).stem}_stage{number}"  # MMEngine's are unique
        stage_args.resume = "auto" if state == "cut off" else None
        barrier()
        run(stage_args, cfg)
        barrier()  # the next stage reads what the first process wrote
        gc.collect()


def _stage_arguments(args: argparse.Namespace, own: argparse.Namespace) -> argparse.Namespace:
    """Give a stage the flags of the chain's command line."""
    merged = argparse.Namespace(**{**vars(args), **vars(own)})
    for name, value in vars(args).items():
        if name not in ("config", "seed", "work_dir", "cfg_options", "resume"):
            setattr(merged, name, value)
    teacher = {k: v for k, v in own.cfg_options.items() if k.startswith("model.teacher.")}
    merged.cfg_options = {**own.cfg_options, **args.cfg_options, **teacher}
    return merged


def _state_of(stage: Stage, cfg: Config) -> str:
    noted = read_origin(stage.work_dir)
    if noted is None:
        return "new"
    if noted != origin_of(cfg):
        return "changed"
    return "finished" if Path(stage.work_dir, FINAL).is_file() else "cut off"


def _agree(state: str) -> str:
    """Let the first process decide for all: one may look later than another writes."""
    states = [state]
    broadcast_object_list(states)
    return states[0]


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # the process group may not exist yet
        print(text, flush=True)

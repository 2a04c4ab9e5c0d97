"""Running a chain: what is finished, cut off or changed."""

import argparse
import copy
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.utils.dl_utils import set_multi_processing

from mmkd_logit._arguments import type_name
from mmkd_logit._sealed_files import why_damaged
from mmkd_logit.hooks.resume_state_hook import STATE

from .chain import Build, Stage, read_chain
from .checkpoint import read_lazily
from .fingerprint import row_fingerprint
from .last_checkpoint import last_checkpoint
from .provenance import origin_of, read_origin
from .results import find_row, read_lines
from .run_identity import list_changes
from .run_lock import only_run_in
from .teachers import FINAL


class _State(NamedTuple):
    """What is to be done with a stage.

    Attributes:
        text: For the user.
        trains: Whether its weights are still to be made.
        resumes: Whether it goes on from its last checkpoint.
        runs: Whether there is anything to do.
    """

    text: str
    trains: bool = True
    resumes: bool = False
    runs: bool = True


def run_chain(
    args: argparse.Namespace,
    build: Build,
    run: Callable[[argparse.Namespace, Config], None],
    finish: Callable[[argparse.Namespace, Config], None],
) -> None:
    """Train the stages of a chain that are not finished, in order.

    A stage is finished when its ``final.pth`` is there and ``origin.json`` says that it was made
    from the present config, seed, teacher, label files and number of processes. A stage that was
    cut off goes on from its last checkpoint. A stage of which one of those has changed is trained
    anew, and so are those behind it, whose teacher changes with it. A finished stage of which
    ``--results`` has no row is tested.

    Args:
        args: Of ``tools/train.py``.
        build: Makes a stage's config.
        run: Trains a stage, tests it and records its results.
        finish: Does what is left to do for a finished stage.

    Raises:
        ValueError: As of :func:`read_chain`; nothing has been trained then.
        FileNotFoundError: If a stage's config does not exist.
    """
    stages = read_chain(args, build)
    start_processes(stages[0].cfg)
    with only_run_in(Path(stages[0].args.work_dir).parent):
        _run_stages(stages, args, build, run, finish)


def _run_stages(
    stages: list[Stage],
    args: argparse.Namespace,
    build: Build,
    run: Callable[[argparse.Namespace, Config], None],
    finish: Callable[[argparse.Namespace, Config], None],
) -> None:
    for number, (name, own, _) in enumerate(stages, 1):
        cfg = build(copy.deepcopy(own))
        state = _agree(_state_of(cfg, args))
        if is_main_process():
            print(f"{name}: {state.text}", flush=True)
        # MMEngine keeps every run by name and second, and two stages may share a config.
        named = cfg.get("experiment_name") or Path(own.config).stem
        cfg.experiment_name = f"{named}_stage{number}"
        if state.runs:
            _write_final(cfg, state.trains)
            own.resume = "auto" if state.resumes else None
            run(own, cfg)
            barrier()  # the next stage reads what the first process wrote
        else:
            finish(own, cfg)
        del cfg
        gc.collect()


def start_processes(cfg: Config) -> None:
    """Join the processes now: until then slurm's do not know how many they are, or which.

    Args:
        cfg: Of the run to come.
    """
    if cfg.launcher != "none" and not is_distributed():  # on GPUs; as the Runner would do it
        env_cfg = cfg.get("env_cfg") or {}
        set_multi_processing(**env_cfg.get("mp_cfg", {}), distributed=True)
        init_dist(cfg.launcher, **env_cfg.get("dist_cfg", {}))


def _write_final(cfg: Config, wanted: bool) -> None:
    """Have ``final.pth`` written, which teaches the next stage, or left as it is."""
    hooks = [
        hook
        for hook in cfg.get("custom_hooks") or []
        if type_name(hook) != "FinalCheckpointHook" or hook.get("filename", FINAL) != FINAL
    ]
    cfg.custom_hooks = [*hooks, *[dict(type="mmkd_logit.FinalCheckpointHook")] * wanted]


def _state_of(cfg: Config, args: argparse.Namespace) -> _State:
    folder, noted, origin = Path(cfg.work_dir), read_origin(cfg.work_dir), origin_of(cfg)
    final, checkpoint = folder / FINAL, last_checkpoint(folder)
    damaged = why_damaged(final, only_zip=True) if final.is_file() else None
    if noted is None and not final.is_file():
        return _State(f"starts in {folder}")
    if row_fingerprint(noted or {}) != origin["fingerprint"]:
        why = f"nothing says what made {final}"
        if noted is not None and "computed" in noted:
            changes = list_changes(noted["computed"], origin["computed"])
            why = "; ".join(changes) or "the number of epochs or processes has changed"
        return _State(f"starts anew in {folder}: {why}")
    if damaged is not None:
        if checkpoint is None:
            return _State(f"starts again in {folder}: {final} is damaged, {damaged}")
        return _State(f"{final} is damaged, {damaged}; goes on from {checkpoint}", resumes=True)
    if not final.is_file():
        if checkpoint is None:
            return _State(f"was cut off before its first checkpoint, starts again in {folder}")
        return _State(f"was cut off, goes on from {checkpoint}", resumes=True)
    finished = f"finished before, {final}"
    rows = read_lines(Path(args.results)) if args.results else []
    if not args.results or find_row(cfg, rows, origin["processes"], ["train"] * args.train_metrics):
        return _State(finished, trains=False, runs=False)
    if checkpoint is None or not _is_last(checkpoint, cfg):
        why = f"has no results of it, and its last checkpoint to test is gone; {final} stays"
        return _State(f"{finished}; {args.results} {why}", trains=False, runs=False)
    text = f"{finished}; {args.results} has no results of it, tests it"
    return _State(text, trains=False, resumes=True)


def _is_last(checkpoint: Path, cfg: Config) -> bool:
    """Whether a checkpoint is of the end of training, so that resuming it trains nothing."""
    state = read_lazily(str(checkpoint)).get(STATE)
    if isinstance(state, dict):
        return bool(state.get("finished"))
    end = cfg.train_cfg.get("max_epochs") or cfg.train_cfg.get("max_iters")
    return bool(re.fullmatch(rf"(epoch|iter)_{end}", checkpoint.stem))


def _agree(state: _State) -> _State:
    """Let the first process decide for all: one may look later than another writes."""
    states = [state]
    broadcast_object_list(states)
    return states[0]

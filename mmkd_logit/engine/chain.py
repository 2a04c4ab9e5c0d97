"""Runs whose students teach the next, as one command."""

import argparse
import copy
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.utils.dl_utils import set_multi_processing

from mmkd_logit.checkpoint import read_lazily
from mmkd_logit.utils.arguments import type_name
from mmkd_logit.utils.files import why_damaged

from .config import (
    FINAL,
    default_work_dir,
    explain_missing,
    find_missing_teachers,
    model_teachers,
    parse_overrides,
    read_config,
)
from .fingerprint import describe_run, list_changes, read_run, row_fingerprint
from .lock import only_run_in
from .results import find_row, read_lines
from .resume import STATE, last_checkpoint

_STAGE_FIELDS = {"config", "overrides"}
_CHAIN_FIELDS = {"stages", "randomness", "work_dir"}
Build = Callable[[argparse.Namespace], Config]


class Stage(NamedTuple):
    """One run of a chain.

    Attributes:
        name: How messages call it.
        args: What ``tools/train.py`` would be given for this stage alone.
        cfg: Its complete config, before a run has changed it.
    """

    name: str
    args: argparse.Namespace
    cfg: Config


def is_chain(path: str) -> bool:
    """Whether a config file lists the stages of a chain."""
    known = Path(path).suffix in (".py", ".json", ".yaml", ".yml")
    return known and Path(path).is_file() and "stages" in Config.fromfile(path)


def read_chain(args: argparse.Namespace, build: Build) -> list[Stage]:
    """Read a chain config: ``stages``, a list of dicts.

    A stage has ``config``, a plain or a distilling config, and ``overrides``, a list of its
    settings as on the command line. From the second stage on it must be a distilling config with
    one teacher, which the student of the stage before replaces. ``--cfg-options`` of the command
    line hold for every stage. The file may also set ``randomness=dict(seed=...)``, otherwise 0,
    and ``work_dir``; names that begin with an underscore are its own.
    """
    chain = Config.fromfile(args.config)
    _check_chain(args, chain)
    seed = args.cfg_options.get("randomness.seed", args.seed)
    if seed is None:
        seed = (chain.get("randomness") or {}).get("seed", 0)
    folder = Path(args.work_dir or chain.get("work_dir") or _default_folder(args, seed))
    result: list[Stage] = []
    for number, stage in enumerate(chain.stages, 1):
        where = f"{args.config}, stage {number}"
        own = copy.deepcopy(args)
        own.cfg_options = {**_overrides_of(where, stage), **args.cfg_options}
        own.config, own.seed, own.resume = stage["config"], seed, None
        own.work_dir = str(folder / f"{number}_{Path(own.config).stem}")
        name = f"stage {number} of {len(chain.stages)}, {Path(own.config).stem}"
        try:
            if result:
                own.cfg_options["model.teacher"] = [_teacher(own, build, result[-1])]
            result.append(Stage(name, own, build(copy.deepcopy(own))))
            _check_model(result)
            _check_teachers(result, own.train_teacher)
        except (ValueError, OSError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{where}: {error}") from error
    return result


def _default_folder(args: argparse.Namespace, seed: int) -> str:
    return default_work_dir(args.config, seed, getattr(args, "fast", False))


def _check_chain(args: argparse.Namespace, chain: Config) -> None:
    if args.resume not in (None, "auto"):
        raise ValueError(
            f"a chain finds its own checkpoints; leave out --resume {args.resume}, or resume the "
            "stage alone: python tools/train.py CONFIG --work-dir FOLDER --resume FILE"
        )
    if getattr(args, "resume_changed", False):
        raise ValueError(
            "a chain trains what has changed anew; leave out --resume-changed, or resume the stage "
            "alone: python tools/train.py CONFIG --work-dir FOLDER --resume --resume-changed"
        )
    if not isinstance(chain.stages, (list, tuple)) or not chain.stages:
        raise ValueError(
            f"{args.config}: stages must be a list of dict(config='PATH'), got {chain.stages!r}"
        )
    unknown = {name for name in chain if not name.startswith("_")} - _CHAIN_FIELDS
    if unknown:
        raise ValueError(
            f"{args.config}: a chain has {', '.join(sorted(_CHAIN_FIELDS))}, got also "
            f"{', '.join(sorted(unknown))}; settings of a run belong to the overrides of a stage"
        )
    randomness = chain.get("randomness")
    if randomness is not None and (not isinstance(randomness, dict) or set(randomness) != {"seed"}):
        raise ValueError(
            f"{args.config}: randomness of a chain must be dict(seed=N), got {randomness!r}"
        )
    for name in args.cfg_options:
        if name.startswith("model.teacher"):
            raise ValueError(
                f"--cfg-options {name}: a chain's teachers are its students; set that of the "
                "first stage in its overrides"
            )
    if not isinstance(chain.get("work_dir"), str | None):
        raise ValueError(f"{args.config}: work_dir must be text, got {chain.work_dir!r}")


def _overrides_of(where: str, stage: Any) -> dict[str, Any]:
    """Check how a stage is written and parse its overrides."""
    if not isinstance(stage, dict) or not isinstance(stage.get("config"), str):
        raise ValueError(f"{where} must be dict(config='PATH'), got {stage!r}")
    unknown = set(stage) - _STAGE_FIELDS
    if unknown:
        raise ValueError(f"{where} takes config and overrides, got also {sorted(unknown)}")
    texts = stage.get("overrides", [])
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: overrides must be a list of 'KEY=VALUE', got {texts!r}")
    try:
        return parse_overrides(texts)
    except ValueError as error:
        raise ValueError(f"{where}, overrides: {error}") from None


def _teacher(args: argparse.Namespace, build: Build, before: Stage) -> dict[str, Any]:
    """Return the teacher of a stage: the student of the one before."""
    cfg = build(copy.deepcopy(args))
    specs = model_teachers(cfg)
    if len(specs) != 1:
        raise ValueError(
            f"{args.config} must be a distilling config with one teacher, "
            "dict(config=..., checkpoint=...), which the student of the stage before replaces"
        )
    network, written = _network(before.cfg), _network(read_config(before.args.config))
    config = before.args.config if network == written else network
    checkpoint = str(Path(before.args.work_dir, FINAL))
    return dict(config=config, checkpoint=checkpoint, **specs[0].options)


def _network(cfg: Config) -> dict[str, Any]:
    """Return the part of a config that :class:`~mmkd_logit.models.FrozenTeacher` reads."""
    model, preprocessor = cfg.model, cfg.get("data_preprocessor")
    if type_name(model) == "LogitDistiller":
        model, preprocessor = model.student, model.get("data_preprocessor", preprocessor)
    network = ConfigDict(model=model, data_preprocessor=preprocessor)
    return copy.deepcopy(network).to_dict()


def _check_model(stages: list[Stage]) -> None:
    """Build a stage's model and hooks, and compare its classes with those of the stage before."""
    check_build(stages[-1].cfg, stages[-1].args.config)
    classes = [
        (_network(stage.cfg)["model"].get("head") or {}).get("num_classes") for stage in stages[-2:]
    ]
    if None not in classes and len(set(classes)) > 1:
        raise ValueError(
            f"its student has {classes[1]} classes, that of the stage before {classes[0]}"
        )


def check_build(cfg: Config, name: str) -> None:
    """Build the model and the hooks of a run that is to begin when others have ended."""
    cfg = copy.deepcopy(cfg)
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmpretrain"):
            MODELS.build(cfg.model)
            for hook in cfg.get("custom_hooks") or []:
                HOOKS.build(hook)
    except Exception as error:
        raise ValueError(f"{name} cannot be built: {error}") from error


def _check_teachers(stages: list[Stage], train_teacher: bool) -> None:
    """Refuse a stage that misses another teacher than the student of the stage before."""
    own = {str(Path(stage.args.work_dir, FINAL)) for stage in stages[:-1]}
    missing = [t for t in find_missing_teachers(stages[-1].cfg) if t.checkpoint not in own]
    if missing and not (train_teacher and all(teacher.can_be_trained() for teacher in missing)):
        raise ValueError(explain_missing(missing))


# Running a chain: what is finished, cut off or changed.


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

    A stage is finished when its ``final.pth`` is there and ``run.json`` says that it was made
    from the present config, seed, teacher, label files and number of processes. A stage that was
    cut off goes on from its last checkpoint. A stage of which one of those has changed is trained
    anew, and so are those behind it, whose teacher changes with it. A finished stage of which
    ``--results`` has no row is tested.
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
    """Join the processes now: until then slurm's do not know how many they are, or which."""
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
    folder, noted, origin = Path(cfg.work_dir), read_run(cfg.work_dir), describe_run(cfg)
    final, checkpoint = folder / FINAL, last_checkpoint(folder)
    damaged = why_damaged(final, only_zip=True) if final.is_file() else None
    if "computed" not in noted and not final.is_file():
        return _State(f"starts in {folder}")
    if row_fingerprint(noted) != origin["fingerprint"]:
        why = f"nothing says what made {final}"
        if "computed" in noted:
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

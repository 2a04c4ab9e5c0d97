"""Computing a teacher's logits once for the students that wait for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmkd_logit.engine.config import seed_of
from mmkd_logit.engine.teachers import model_teachers

from .run import Run


@dataclass(frozen=True, eq=False)
class Precompute:
    """Filling the cache of a teacher with the views that students of one seed will draw.

    Attributes:
        key: The folder of the log.
        words: Of ``tools/cache.py``.
    """

    key: str
    words: tuple[str, ...]


def plan_precomputes(
    runs: Mapping[str, Run], configs: Mapping[str, Config]
) -> dict[str, Precompute]:
    """Find the students that will ask the same teacher for the same views.

    These are those with the same teacher, data and seed: which view of an image an epoch draws
    follows from seed, epoch and image alone.

    Args:
        runs: By work folder.
        configs: Their complete configs.

    Returns:
        By the work folder of each student that is not alone, what to compute before it starts.
    """
    groups: dict[str, list[str]] = {}
    for folder, run in runs.items():
        cfg = configs[folder]
        specs = model_teachers(cfg)
        stored = [spec for spec in specs if _is_stored(spec)]
        if not run.teachers or not stored or not cfg.train_cfg.get("max_epochs"):
            continue
        same = dict(teachers=specs, data=cfg.train_dataloader, by=cfg.get("data_preprocessor"))
        key = json.dumps([same, seed_of(cfg)], sort_keys=True, default=str)
        groups.setdefault(key, []).append(folder)
    found: dict[str, Precompute] = {}
    for folders in groups.values():
        if len(folders) > 1:
            epochs = max(configs[folder].train_cfg.max_epochs for folder in folders)
            found.update(dict.fromkeys(folders, _job(runs[folders[0]], epochs)))
    return found


def _is_stored(spec: object) -> bool:
    cache = spec.get("cache") if isinstance(spec, dict) else None
    return isinstance(cache, dict) and cache.get("storage") == "disk"


def _job(run: Run, epochs: int) -> Precompute:
    name = run.config.rpartition("/")[2].removesuffix(".py")
    key = str(Path(run.teachers[0].work_dir, "precompute", f"{name}-seed{run.seed}"))
    words = ["fill", run.config, "--epochs", str(epochs), "--seed", str(run.seed)]
    words += [*["--fast"] * run.fast, "--work-dir", key]
    options = [text for text in run.overrides if not text.startswith("model.loss_kd")]
    return Precompute(key, (*words, *["--cfg-options", *options] * bool(options)))

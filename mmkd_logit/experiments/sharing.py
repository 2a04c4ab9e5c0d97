"""Which runs are trained together, with one pass of their teacher."""

import json
from collections.abc import Mapping

from mmengine.config import Config

from mmkd_logit.engine.teachers import teacher_specs
from mmkd_logit.engine.together_config import batches_key, why_alone

from .run import Run


def units_of(runs: Mapping[str, Run], configs: Mapping[str, Config], size: int) -> list[list[str]]:
    """Group the runs of an execution.

    Students share when their configs differ in model, optimizer and schedule alone and their
    teachers are the same. A run without a teacher joins the first group that has its batches,
    unless other runs need its weights.

    Args:
        runs: By work folder, teachers before their students.
        configs: Their complete configs.
        size: The largest number of students in one group; 1 or less shares nothing.

    Returns:
        Lists of work folders, in the order of ``runs``.
    """
    if size < 2:
        return [[folder] for folder in runs]
    needed = {need.work_dir for run in runs.values() for need in run.needs}
    units: list[list[str]] = []
    open_units: dict[str, dict[str, list[str]]] = {}  # by batches, then by teachers
    for folder in [*_taught(runs, configs, True), *_taught(runs, configs, False)]:
        cfg, run = configs[folder], runs[folder]
        teachers = json.dumps(teacher_specs(cfg), sort_keys=True, default=str)
        if why_alone(cfg) or run.scores is not None or (folder in needed and not run.teachers):
            units.append([folder])
            continue
        mates = open_units.setdefault(batches_key(cfg), {})
        if not teacher_specs(cfg) and mates:
            teachers = next((key for key in mates if len(mates[key]) < size), teachers)
        unit = mates.get(teachers)
        if unit is None or len(unit) >= size or _depend(runs, unit, folder):
            mates[teachers] = [folder]
            units.append(mates[teachers])
        else:
            unit.append(folder)
    place = {folder: number for number, folder in enumerate(runs)}
    for unit in units:
        unit.sort(key=place.__getitem__)
    return sorted(units, key=lambda unit: place[unit[0]])


def _taught(runs: Mapping[str, Run], configs: Mapping[str, Config], wanted: bool) -> list[str]:
    return [folder for folder in runs if bool(teacher_specs(configs[folder])) is wanted]


def _depend(runs: Mapping[str, Run], unit: list[str], folder: str) -> bool:
    """Whether a run needs one of the unit's, or one of them needs it."""

    def needs(name: str) -> set[str]:
        own = {run.work_dir for run in runs[name].needs}
        return own.union(*(needs(other) for other in own)) if own else own

    return bool(needs(folder) & set(unit)) or any(folder in needs(other) for other in unit)

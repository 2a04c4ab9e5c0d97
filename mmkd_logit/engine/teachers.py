"""A kd config knows which config makes its teacher."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from mmkd_logit._arguments import type_name

from .config import default_work_dir

FINAL = "final.pth"


class MissingTeacher(NamedTuple):
    """A teacher whose local checkpoint is not there.

    Attributes:
        config: The config file that makes it, or None.
        checkpoint: Where it should be.
        seed: The seed in the name of its folder, or None.
        setting: The field of the config that names it.
    """

    config: str | None
    checkpoint: str
    seed: int | None
    setting: str = "model.teacher.checkpoint"

    @property
    def arguments(self) -> list[str]:
        """What ``tools/train.py`` needs to make it."""
        words = [str(self.config)]
        if self.seed is not None:
            words += ["--seed", str(self.seed)]
        folder = str(Path(self.checkpoint).parent)
        default_seed = 0 if self.seed is None else self.seed
        if Path(folder) != Path(default_work_dir(str(self.config), default_seed)):
            words += ["--work-dir", folder]
        return words

    @property
    def command(self) -> str:
        """The command that makes it."""
        return shlex.join(["python", "tools/train.py", *self.arguments])

    def can_be_trained(self) -> bool:
        """Whether training that config writes that checkpoint."""
        return self.config is not None and Path(self.checkpoint).name == FINAL


def teacher_specs(cfg: Config) -> list[Any]:
    """List what a config says of its teachers; nothing where it has none.

    Args:
        cfg: Any config. The model's teachers come first, then those of the stages of its
            ``SequentialTeacherHook``.
    """
    return [spec for _, spec in _named_teachers(cfg)]


def model_teachers(cfg: Config) -> list[Any]:
    """List what a config says of the teachers that a run begins with.

    Args:
        cfg: Any config.
    """
    return [spec for name, spec in _named_teachers(cfg) if name.startswith("model.")]


def teacher_options(spec: Any) -> dict[str, Any]:
    """Return what a config says of a teacher beside which one it is: how it computes.

    Args:
        spec: Of the teacher.
    """
    if not isinstance(spec, dict) or "config" not in spec:
        return {}
    plain = spec.to_dict() if isinstance(spec, ConfigDict) else spec
    return {key: value for key, value in plain.items() if key not in ("config", "checkpoint")}


def later_teachers(cfg: Config) -> list[str]:
    """List the fields of a config that name the teachers of its hook's stages.

    Args:
        cfg: Any config.
    """
    return [name for name, _ in _named_teachers(cfg) if not name.startswith("model.")]


def change_teachers(cfg: Config, change: Callable[[Any], Any]) -> None:
    """Replace what a config says of each of its teachers.

    Args:
        cfg: Changed in place.
        change: Gets what is said of one teacher and returns what shall be said.
    """
    for _, holder in _holders(cfg):
        given = holder.get("teacher")
        if isinstance(given, (list, tuple)):
            holder["teacher"] = [change(spec) for spec in given]
        elif given:
            holder["teacher"] = change(given)


def _holders(cfg: Config) -> list[tuple[str, dict]]:
    """List the parts of a config that name teachers, and how their fields are called."""
    holders = [("model.teacher", cfg.model)]
    for name, student in (cfg.model.get("students") or {}).items():  # of a StudentGroup
        holders.append((f"model.students.{name}.teacher", student))
    for i, hook in enumerate(cfg.get("custom_hooks") or []):
        if isinstance(hook, dict) and type_name(hook) == "SequentialTeacherHook":
            stages = hook.get("stages")
            for k, stage in enumerate(stages if isinstance(stages, (list, tuple)) else []):
                if isinstance(stage, dict):  # the hook refuses others
                    holders.append((f"custom_hooks.{i}.stages.{k}.teacher", stage))
    return holders


def _named_teachers(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Give each teacher with the field of the config that names it."""
    for name, holder in _holders(cfg):
        teachers = holder.get("teacher") or []
        if not isinstance(teachers, (list, tuple)):
            yield name, teachers
            continue
        for number, spec in enumerate(teachers):
            yield f"{name}.{number}", spec


def find_missing_teachers(cfg: Config) -> list[MissingTeacher]:
    """List the teachers of a config whose local checkpoints do not exist.

    Args:
        cfg: Any config; one without a distiller has no teachers.
    """
    if type_name(cfg.model) != "LogitDistiller":
        return []
    missing: dict[tuple, MissingTeacher] = {}
    for name, spec in _named_teachers(cfg):
        checkpoint = spec.get("checkpoint") if isinstance(spec, dict) else None
        if not isinstance(checkpoint, str) or not checkpoint or "://" in checkpoint:
            continue
        if Path(checkpoint).expanduser().is_file():
            continue
        config: Any = spec.get("config")
        if not isinstance(config, str):
            config = None
        found = re.fullmatch(r"seed(\d+)", Path(checkpoint).parent.name)
        seed = int(found[1]) if found else None
        teacher = MissingTeacher(config, checkpoint, seed, f"{name}.checkpoint")
        missing.setdefault((config, checkpoint), teacher)
    return list(missing.values())


def explain_missing(missing: list[MissingTeacher]) -> str:
    """Say which command makes the missing teachers.

    Args:
        missing: At least one.
    """
    lines = []
    for teacher in missing:
        if teacher.can_be_trained():
            how = f"make it with: {teacher.command}"
        elif teacher.config:
            how = f"set {teacher.setting} to a checkpoint of {teacher.config}"
        else:
            how = f"set {teacher.setting} to an existing file"
        lines.append(f"the teacher's checkpoint {teacher.checkpoint} does not exist; {how}")
    if any(teacher.can_be_trained() for teacher in missing):
        lines.append("or add --train-teacher to train it first")
    return "; ".join(lines)

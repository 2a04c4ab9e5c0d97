"""A kd config knows which config makes its teacher."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from .config import default_work_dir

FINAL = "final.pth"


class MissingTeacher(NamedTuple):
    """A teacher whose local checkpoint is not there.

    Attributes:
        config: The config file that makes it, or None.
        checkpoint: Where it should be.
        seed: The seed in the name of its folder, or None.
    """

    config: str | None
    checkpoint: str
    seed: int | None

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


def teacher_specs(model: dict) -> list[Any]:
    """List what a model's config says of its teachers; nothing where it has none.

    Args:
        model: Config of a model.
    """
    teachers = model.get("teacher") or []
    return list(teachers) if isinstance(teachers, (list, tuple)) else [teachers]


def find_missing_teachers(cfg: Config) -> list[MissingTeacher]:
    """List the teachers of a config whose local checkpoints do not exist.

    Args:
        cfg: Any config; one without a distiller has no teachers.
    """
    model = cfg.model
    if model.get("type") not in ("mmkd_logit.LogitDistiller", "LogitDistiller"):
        return []
    missing = []
    for spec in teacher_specs(model):
        checkpoint = spec.get("checkpoint") if isinstance(spec, dict) else None
        if not isinstance(checkpoint, str) or not checkpoint or "://" in checkpoint:
            continue
        if Path(checkpoint).expanduser().is_file():
            continue
        config: Any = spec.get("config")
        if not isinstance(config, str):
            config = None
        seed = re.fullmatch(r"seed(\d+)", Path(checkpoint).parent.name)
        missing.append(MissingTeacher(config, checkpoint, int(seed[1]) if seed else None))
    return list(dict.fromkeys(missing))


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
            how = f"set model.teacher.checkpoint to a checkpoint of {teacher.config}"
        else:
            how = "set model.teacher.checkpoint to an existing file"
        lines.append(f"the teacher's checkpoint {teacher.checkpoint} does not exist; {how}")
    if any(teacher.can_be_trained() for teacher in missing):
        lines.append("or add --train-teacher to train it first")
    return "; ".join(lines)

"""An exhibit: which runs it needs and how they are compared."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict

from mmkd_logit.engine.config import default_work_dir
from mmkd_logit.engine.teachers import FINAL
from mmkd_logit.engine.train import build_config, build_parser


class Run(NamedTuple):
    """One training with one seed.

    Attributes:
        name: Of the row of the exhibit that it belongs to.
        config: The config file.
        overrides: Settings of the config as on the command line, ``KEY=VALUE``.
        seed: The random seed.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def work_dir(self) -> str:
        """The run's folder; the overrides are part of its name."""
        folder = Path(default_work_dir(self.config, self.seed))
        kept = [text for text in self.overrides if not text.startswith("model.teacher.")]
        if not kept:
            return str(folder)
        # Only what needs no quotes, also inside --cfg-options, where a comma makes a list.
        words = re.sub(r"[^\w.=+-]+", "-", "_".join(kept))
        if len(words) > 100 or words != "_".join(kept):
            words = f"{words[:90]}-{hashlib.sha256(repr(kept).encode()).hexdigest()[:8]}"
        return str(folder.parent.with_name(f"{folder.parent.name}_{words}") / folder.name)

    def arguments(self) -> list[str]:
        """What ``tools/train.py`` needs for this run."""
        words = [self.config, "--seed", str(self.seed), "--work-dir", self.work_dir]
        return [*words, "--cfg-options", *self.overrides] if self.overrides else words

    def build_config(self) -> Config:
        """Read what ``tools/train.py`` will run.

        Raises:
            ValueError: If the overrides do not fit the config.
            FileNotFoundError: If the config does not exist.
        """
        return build_config(build_parser().parse_args(self.arguments()))


class Exhibit:
    """A table or figure, read from a file under ``configs/paper``.

    Args:
        path: The file: ``title``, ``runs`` (by name: ``label``, ``config``, ``overrides``, and
            ``teacher``, the name of the run whose student of the same seed teaches) and
            ``comparisons`` (pairs of names, the first minus the second).
        options: Overrides for every run, for runs at reduced size.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lacks a field, a run names a teacher that does not stand before it, or
            a comparison names no run.
    """

    def __init__(self, path: str | Path, options: tuple[str, ...] = ()) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the exhibit {path} does not exist")
        cfg = Config.fromfile(path)
        if not cfg.get("title") or not cfg.get("runs"):
            raise ValueError(f"{path} defines no title or no runs; it is not an exhibit")
        self.name = Path(path).stem
        self.title: str = cfg.title
        self.options = options
        self.labels: dict[str, str] = {}
        self._rows: dict[str, ConfigDict] = {}
        self.comparisons = [tuple(pair) for pair in cfg.get("comparisons", [])]
        for name, row in cfg.runs.items():
            if not row.get("label") or not row.get("config"):
                raise ValueError(f"{path}: the run {name} needs a label and a config")
            if row.get("teacher") is not None and row.teacher not in self._rows:
                raise ValueError(f"{path}: the teacher {row.teacher!r} of {name} must come first")
            self.labels[name] = row.label
            self._rows[name] = row
        unknown = {name for pair in self.comparisons for name in pair} - set(self._rows)
        if unknown or any(len(pair) != 2 for pair in self.comparisons):
            raise ValueError(f"{path}: comparisons are pairs of {list(self._rows)}")

    def runs(self, seeds: list[int]) -> list[Run]:
        """List the runs, teachers before their students.

        Args:
            seeds: One set of runs for each.

        Raises:
            ValueError: If two different runs would share a work folder.
        """
        runs: list[Run] = []
        for seed in seeds:
            done: dict[str, Run] = {}
            for name, row in self._rows.items():
                overrides = (*self.options, *row.get("overrides", ()))
                if row.get("teacher") is not None:
                    teacher = Path(done[row.teacher].work_dir, FINAL)
                    overrides += (f"model.teacher.checkpoint={teacher}",)
                done[name] = Run(name, row.config, overrides, seed)
            runs.extend(done.values())
        users: dict[str, Run] = {}
        for run in runs:
            other = users.setdefault(run.work_dir, run)
            if other.arguments() != run.arguments():
                raise ValueError(
                    f"the runs {other.name} and {run.name} are different and would both write to "
                    f"{run.work_dir}; give one of them a config file with a name of its own"
                )
        return runs

"""An exhibit: which runs it needs and how they are compared."""

import os
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict

from mmkd_logit.engine.config import config_hash, default_work_dir
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
        folder = default_work_dir(self.config, self.seed)
        kept = [text for text in self.overrides if not text.startswith("model.teacher.")]
        if not kept:
            return folder
        words = "_".join(text.replace("/", "-") for text in kept)
        return str(Path(os.path.dirname(folder) + f"_{words}", os.path.basename(folder)))

    def arguments(self) -> list[str]:
        """What ``tools/train.py`` needs for this run."""
        words = [self.config, "--seed", str(self.seed), "--work-dir", self.work_dir]
        return [*words, "--cfg-options", *self.overrides] if self.overrides else words

    def expected_hash(self) -> str:
        """The hash that a results row of this run has while its config stays as it is."""
        return config_hash(build_config(build_parser().parse_args(self.arguments())))


class Exhibit:
    """A table or figure, read from a file under ``configs/paper``.

    Args:
        path: The file: ``title``, ``runs`` (by name: ``label``, ``config``, ``overrides``, and
            ``teacher``, the name of the run whose student of the same seed teaches) and
            ``comparisons`` (pairs of names, the first minus the second).
        options: Overrides for every run, for runs at reduced size.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a run names a teacher that does not stand before it.
    """

    def __init__(self, path: str | Path, options: tuple[str, ...] = ()) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the exhibit {path} does not exist")
        cfg = Config.fromfile(path)
        self.name = Path(path).stem
        self.title: str = cfg.title
        self.options = options
        self.labels: dict[str, str] = {}
        self._rows: dict[str, ConfigDict] = {}
        self.comparisons = [tuple(pair) for pair in cfg.get("comparisons", [])]
        for name, row in cfg.runs.items():
            if row.get("teacher") is not None and row.teacher not in self._rows:
                raise ValueError(f"{path}: the teacher {row.teacher!r} of {name} must come first")
            self.labels[name] = row.label
            self._rows[name] = row

    def runs(self, seeds: list[int]) -> list[Run]:
        """List the runs, teachers before their students.

        Args:
            seeds: One set of runs for each.
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
        return runs

"""One run of an exhibit: where it writes, what it is given, whom it needs."""

import copy
import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmkd_logit.engine.config import default_work_dir, read_config
from mmkd_logit.engine.train_config import build_config, build_parser

# Files of other runs, which the suffix stands for.
NOT_IN_NAMES = re.compile(r"model\.teacher|custom_hooks\..*\.teacher|.*\.scores=")


@dataclass(frozen=True)
class Run:
    """One training with one seed.

    Attributes:
        name: Of the cell of the exhibit that it belongs to.
        config: The config file.
        overrides: Settings of the config as on the command line, ``KEY=VALUE``.
        seed: The random seed.
        epochs: Number of epochs, or None for the config's.
        cell_seed: The seed of the exhibit that it counts for.
        teachers: The runs whose students teach here.
        scores: The run whose student scores the training samples, or None.
        options: Those of the overrides that every run of the command has.
        fast: Whether it is trained in fewer digits.
        suffix: Sets the work folder apart from that of other teachers' students.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    seed: int
    epochs: int | None = None
    cell_seed: int = field(default=0, compare=False)
    teachers: tuple["Run", ...] = ()
    suffix: str = ""
    options: tuple[str, ...] = ()
    scores: "Run | None" = None
    fast: bool = False

    @property
    def needs(self) -> tuple["Run", ...]:
        """The runs that must have ended before."""
        return self.teachers if self.scores is None else (*self.teachers, self.scores)

    @functools.cached_property
    def work_dir(self) -> str:
        """The run's folder; the overrides are part of its name."""
        folder = Path(default_work_dir(self.config, self.seed))
        kept = [t for t in self.overrides if t in self.options or not NOT_IN_NAMES.match(t)]
        kept = [text for text in kept if not text.startswith("data_root=")]
        kept += ["fast"] * self.fast
        kept += [f"{self.epochs}e"] * (self.epochs is not None) + [self.suffix] * bool(self.suffix)
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
        if self.epochs is not None:
            words += ["--epochs", str(self.epochs)]
        words += ["--fast"] * self.fast
        return [*words, "--cfg-options", *self.overrides] if self.overrides else words

    def build_config(self) -> Config:
        """Read what ``tools/train.py`` will run.

        Raises:
            ValueError: If the overrides do not fit the config.
            FileNotFoundError: If the config does not exist.
        """
        cfg = copy.deepcopy(read_once(self.config))
        return build_config(build_parser().parse_args(self.arguments()), cfg)


@functools.cache
def read_once(config: str) -> Config:
    """Read a config file that will not be changed here.

    Args:
        config: Its path.

    Raises:
        ValueError: If it has no model, or is no config file.
        FileNotFoundError: If it does not exist.
    """
    return read_config(config)


def refuse_shared_folders(runs: Sequence[Run]) -> None:
    """Make sure that different runs write to different folders.

    Args:
        runs: All that will be trained.

    Raises:
        ValueError: If two would share a folder.
    """
    users: dict[str, Run] = {}
    for run in runs:
        other = users.setdefault(run.work_dir, run)
        if other.arguments() != run.arguments():
            raise ValueError(
                f"the runs {other.name} and {run.name} are different and would both write to "
                f"{run.work_dir}; give one of them a config file with a name of its own"
            )

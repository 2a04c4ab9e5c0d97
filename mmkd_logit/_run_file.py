"""``run.json`` of a work folder: which logs and checkpoints are of the run that it holds.

A folder may hold those of earlier runs too, and names made of times say neither that nor, where a
clock was set back, what came first.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ._atomic_files import write_text

RUN = "run.json"


def read_run(work_dir: str | Path) -> dict[str, list[str]] | None:
    """Return ``logs`` and ``checkpoints``, oldest first, or None where nothing says them.

    Args:
        work_dir: The folder.
    """
    try:
        content = json.loads(Path(work_dir, RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = {}
    for key in ("logs", "checkpoints"):
        names = content.get(key) if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        found[key] = names
    return found


def note_start(work_dir: str | Path, log: str, anew: bool) -> None:
    """Note that training starts.

    Args:
        work_dir: The folder.
        log: Name of the folder in it that this start writes its log to.
        anew: Whether what is there already is of another run.
    """
    known = read_run(work_dir)
    if known is None or anew:
        known = dict(logs=[] if anew else _older_logs(work_dir, log), checkpoints=[])
    _write(work_dir, [*known["logs"], log], known["checkpoints"])


def note_checkpoint(work_dir: str | Path, name: str, gone: Sequence[str] = ()) -> None:
    """Note a checkpoint that is whole.

    Args:
        work_dir: The folder.
        name: Of the checkpoint, as in ``last_checkpoint``.
        gone: Names that will be removed.
    """
    known = read_run(work_dir) or dict(logs=[], checkpoints=[])
    others = [each for each in known["checkpoints"] if each != name and each not in gone]
    _write(work_dir, known["logs"], [*others, name])


def note_logs(work_dir: str | Path, logs: Sequence[str]) -> None:
    """Note that the logs of the run are these.

    Args:
        work_dir: The folder.
        logs: Names of folders in it, oldest first.
    """
    known = read_run(work_dir) or dict(logs=[], checkpoints=[])
    _write(work_dir, logs, known["checkpoints"])


def log_folders(work_dir: str | Path, among: Sequence[str]) -> list[str]:
    """Return the folders of the run's logs in the order in which they were begun.

    Args:
        work_dir: The folder.
        among: Those that are there.
    """
    known = read_run(work_dir)
    if known is None or not known["logs"]:
        return sorted(among)
    return [name for name in known["logs"] if name in among]


def _older_logs(work_dir: str | Path, log: str) -> list[str]:
    """List the logs of a run that was begun before there was such a file."""
    paths = Path(work_dir).glob("*/vis_data/scalars.json")
    return sorted({path.parts[-3] for path in paths} - {log})


def _write(work_dir: str | Path, logs: Sequence[str], checkpoints: Sequence[str]) -> None:
    unique = list(dict.fromkeys(logs))
    content = dict(logs=unique, checkpoints=list(checkpoints))
    write_text(Path(work_dir, RUN), json.dumps(content, indent=1) + "\n")

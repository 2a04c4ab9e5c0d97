"""The checkpoint that a run goes on from."""

from collections.abc import Iterator
from pathlib import Path

from mmkd_logit._run_file import read_run
from mmkd_logit._sealed_files import why_damaged
from mmkd_logit.hooks._saving import POINTER

from .checkpoint import UnsafeCheckpointError, load_from_file


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the checkpoint that a run would go on from; its folder may have been moved since.

    Args:
        work_dir: The run's folder.

    Raises:
        OSError: If one cannot be read now.
    """
    return find_checkpoint(work_dir)[0]


def find_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the last checkpoint that is whole, and say what is wrong with later ones.

    That is the one that ``last_checkpoint`` names, or else those before it in ``run.json``. A
    folder without the first holds no checkpoint of its run, whatever lies there.

    Args:
        work_dir: The run's folder.

    Returns:
        Its path, or None; and a text for each that is damaged or gone.

    Raises:
        OSError: If one cannot be read now.
    """
    problems: list[str] = []
    for name in _names(Path(work_dir)):
        found = _locate(Path(work_dir), name)
        why = "does not exist" if found is None else _why_not(found)
        if why is None:
            return found, problems
        problems.append(f"{found or name} {why}")
    return None, problems


def _names(folder: Path) -> Iterator[str]:
    pointer = folder / POINTER
    if not pointer.is_file():
        return
    named = pointer.read_text(encoding="utf-8", errors="replace").strip()
    if named:
        yield named
    known = read_run(folder)
    before = known["checkpoints"] if known is not None else _numbered_before(folder, named)
    if named in before:  # one that is not named yet may have been meant for other settings
        before = before[: before.index(named)]
    yield from reversed([name for name in before if name != named])


def _numbered_before(folder: Path, named: str) -> list[str]:
    """List the checkpoints of a folder of MMEngine's own, with lower numbers than the last one."""
    kind, _, number = Path(named).stem.rpartition("_")
    if not number.isdigit():
        return []
    found = {}
    for path in folder.glob(f"{kind}_*.pth"):
        own = path.stem.rpartition("_")[2]
        if own.isdigit() and int(own) < int(number):
            found[int(own)] = str(path)
    return [found[key] for key in sorted(found)]


def _locate(folder: Path, name: str) -> Path | None:
    named = Path(name)
    return next((path for path in (folder / named.name, named) if path.is_file()), None)


def _why_not(path: Path) -> str | None:
    why = why_damaged(path, only_zip=True)
    if why is not None:
        return f"is damaged: {why}"
    try:
        load_from_file(str(path), "meta")  # without reading the tensors
    except UnsafeCheckpointError:
        return None  # resuming says so
    except ValueError:
        return "is damaged: it cannot be read as a checkpoint"
    return None


def missing_text(work_dir: str | Path, problems: list[str]) -> str:
    """Say that no checkpoint of a folder is whole.

    Args:
        work_dir: The run's folder.
        problems: Of :func:`find_checkpoint`.
    """
    return (
        f"warning: no checkpoint of {work_dir} is whole ({'; '.join(problems)}); starting from the "
        "beginning"
    )

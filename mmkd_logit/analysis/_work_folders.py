"""Work folders of single runs, outside any exhibit, as an exhibit that no file holds."""

import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._report_read import FORMAT, ExhibitFile
from .files import read_scalars

_SCALARS, _DUMPS = "*/vis_data/scalars.json", "logits/*.npz"


def is_work_folder(folder: Path) -> bool:
    """Whether a run has left something to draw.

    Args:
        folder: Perhaps a run's.
    """
    return any(True for pattern in (_SCALARS, _DUMPS) for _ in folder.glob(pattern))


def exhibit_of_folders(folders: Sequence[Path]) -> ExhibitFile:
    """Make an exhibit of runs; those in ``NAME/seed0``, ``NAME/seed1`` ... are seeds of one.

    By what a run was trained says a dump of its logits, where there is one; a run without is
    called after its folder.

    Args:
        folders: Of the runs.

    Returns:
        An exhibit whose ``path`` is no file; its record says ``outside``.

    Raises:
        ValueError: If a dump or a line of the scalars cannot be read.
    """
    folders = list(dict.fromkeys(folders))
    owners = [_owner(folder) for folder in folders]
    labels = _labels(dict.fromkeys(owner for owner, _ in owners))
    runs = [
        _run(folder, labels[owner], seed)
        for folder, (owner, seed) in zip(folders, owners, strict=True)
    ]
    names = list(labels.values())
    record = dict(
        format=FORMAT,
        name="runs",
        scale=None,
        title=", ".join(names) if len(names) < 3 else f"{len(names)} runs",
        note="",
        protocol="",
        legend={},
        command=["python", "tools/train.py", "CONFIG"],
        root=".",
        cells={name: [name, ""] for name in names},
        metrics=[],
        runs=runs,
        outside=True,
    )
    return ExhibitFile(Path("."), Path("."), record)


def _owner(folder: Path) -> tuple[Path, int]:
    """Return the folder that is called after the run, and the seed."""
    whole = folder.resolve()
    match = re.fullmatch(r"seed(\d+)", whole.name)
    return (whole.parent, int(match[1])) if match else (whole, 0)


def _labels(owners: Iterable[Path]) -> dict[Path, str]:
    """Call each folder by as few of its last parts as tell it from all others."""
    owners, found = list(owners), {}
    for owner in owners:
        for count in range(1, len(owner.parts) + 1):
            tail = owner.parts[-count:]
            if sum(other.parts[-count:] == tail for other in owners) == 1:
                break
        found[owner] = "/".join(tail)
    return found


def _run(folder: Path, label: str, seed: int) -> dict[str, Any]:
    scalars = [str(path) for path in sorted(folder.glob(_SCALARS))]
    dumps = {path.stem: str(path) for path in sorted(folder.glob(_DUMPS))}
    identity = _identity(next(iter(dumps.values()))) if dumps else {}
    epochs = read_scalars(scalars).get("epoch") if scalars else None
    last = int(epochs[1].max()) if epochs is not None else None
    kind = dict(kind="other", tau=None, alpha=None, loss=label, label_noise=None)
    return dict(
        name=label,
        seed=seed,
        work_dir=str(folder),
        config=identity.get("config"),
        overrides=[],
        epochs=last,
        teachers=[],
        method=identity.get("method") or dict(kind, teacher_config=None, network=None),
        command=["python", "tools/train.py", str(identity.get("config") or "CONFIG")],
        row=dict(
            seed=seed,
            epochs=last,
            weights=identity.get("weights"),
            teachers=identity.get("teachers"),
            test={},
            train=None,
        ),
        files=dict(log=None, scalars=scalars, dumps=dumps),
    )


def _identity(path: str) -> dict[str, Any]:
    """Return what a dump says of itself, without reading its arrays."""
    try:
        # Opened here: of a file that is cut off numpy would not close its own.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            found = json.loads(str(file["identity"]))
        if not isinstance(found, dict):
            raise ValueError("its identity is no object")
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a whole dump of logits ({type(error).__name__}: {error}); let "
            "tools/dump_logits.py write it again"
        ) from None
    return found

"""The exhibit files of a folder of results."""

import json
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
_FIELDS = dict(name=str, title=str, command=list, cells=dict, metrics=list, runs=list, root=str)


class ExhibitFile(NamedTuple):
    """An exhibit and where it was read.

    Attributes:
        path: The file.
        root: Where its runs were made, which paths in it are seen from.
        record: What it holds.
    """

    path: Path
    root: Path
    record: dict[str, Any]


def read_exhibit_files(results: str | Path, root: str | Path | None = None) -> list[ExhibitFile]:
    """Read ``RESULTS/*.json`` and ``RESULTS/*/*.json``; other JSON there is passed over.

    Args:
        results: The folder.
        root: Where the runs were made, if their files were moved.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a file is cut off, of another format or lacks something, or there is none.
    """
    folder = Path(results)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of results {folder} does not exist")
    found = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        record = _read(path)
        if record is not None:
            own = Path(root) if root is not None else path.parent / record["root"]
            found.append(ExhibitFile(path, own, record))
    if not found:
        raise ValueError(
            f"{folder} holds no exhibits (NAME.json or SCALE/NAME.json); "
            "tools/reproduce.py NAME writes them"
        )
    return sorted(found, key=lambda each: (each.record.get("scale") or "", each.path.name))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not whole JSON ({error}); remove it, or let "
            "tools/reproduce.py write it again"
        ) from None
    if not isinstance(record, dict) or not {"format", "cells"} <= record.keys():
        return None
    if record["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {record['format']!r} and this program reads {FORMAT}; let this "
            "version's tools/reproduce.py write it again"
        )
    for field, kind in _FIELDS.items():
        if not isinstance(record.get(field), kind):
            raise ValueError(f"{path} lacks {field!r} ({kind.__name__}); it is no exhibit file")
    return record

"""The exhibit files of a folder of results."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ._report_schema import EXHIBIT, check

FORMAT = 1


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

    @property
    def key(self) -> str:
        """What figures call it: ``SCALE/NAME``, or ``NAME``."""
        return "/".join(filter(None, [self.record.get("scale"), self.record["name"]]))


def read_exhibit_files(results: str | Path, root: str | Path | None = None) -> list[ExhibitFile]:
    """Read ``RESULTS/*.json`` and ``RESULTS/*/*.json``; other JSON there is passed over.

    What is not the file's own name for itself, such as a copy in another folder, is told apart by
    where it lies.

    Args:
        results: The folder.
        root: Where the runs were made, if their files were moved.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a file is cut off, of another format or not as it must be, or there is none.
        OSError: If a file cannot be read.
    """
    folder = Path(results)
    for each in (folder, Path(root or folder)):
        if not each.is_dir():
            raise FileNotFoundError(f"the folder {each} does not exist")
    found = list(_read_all(folder, root))
    if not found:
        raise ValueError(
            f"{folder} holds no exhibits (NAME.json or SCALE/NAME.json); "
            "tools/reproduce.py NAME writes them"
        )
    found.sort(key=lambda each: (each.record.get("scale") or "", each.path.name, each.path))
    keys = Counter(each.key for each in found)
    return [_apart(each, folder) if keys[each.key] > 1 else each for each in found]


def _read_all(folder: Path, root: str | Path | None) -> Iterator[ExhibitFile]:
    for path in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        record = _read(path) if path.is_file() else None
        if record is not None:
            own = Path(root) if root is not None else _root(path, record["root"])
            yield ExhibitFile(path, own, record)


def _root(path: Path, way: str) -> Path:
    """Follow a file's way to where its runs were made.

    The way back from a folder that a symbolic link names starts where the link leads. Where both
    ways end in the same folder, it gets the name that a browser knows it by.
    """
    try:
        real = Path(os.path.realpath(path.parent / way))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path}: root {way!r} is no path ({error}); let tools/reproduce.py write it again"
        ) from None
    seen = Path(os.path.normpath(Path.cwd() / path.parent / way))
    return seen if os.path.realpath(seen) == str(real) else real


def _apart(exhibit: ExhibitFile, folder: Path) -> ExhibitFile:
    """Tell two files of one exhibit apart by where they lie."""
    place = exhibit.path.relative_to(folder).as_posix()
    record = exhibit.record
    changed = dict(name=f"{record['name']} in {place}", title=f"{record['title']} ({place})")
    return exhibit._replace(record={**record, **changed})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
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
    try:
        check(record, EXHIBIT)
        _check_places(record)
    except ValueError as error:
        raise ValueError(
            f"{path} is no exhibit file: {error}; let tools/reproduce.py write it again"
        ) from None
    return record


def _check_places(record: dict[str, Any]) -> None:
    for name, place in record["cells"].items():
        if len(place) != 2:
            raise ValueError(f"cells[{name!r}] is not the labels of a row and of a column")
    for position, metric in enumerate(record["metrics"]):
        strange = sorted(metric["cells"].keys() - record["cells"].keys())
        if strange:
            raise ValueError(f"metrics[{position}].cells has {strange[0]!r}, which cells has not")

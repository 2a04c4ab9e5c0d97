"""What every caption says: which exhibit, how many seeds and epochs, whose weights."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ._report_read import ExhibitFile

LAST = "weights after the last epoch, nothing selected"


def file_name(exhibit: ExhibitFile, figure: str, title: str = "") -> str:
    """Return what the files of a figure are called.

    Args:
        exhibit: The exhibit.
        figure: What is drawn.
        title: Of what in the exhibit, if that is not all.
    """
    parts = [exhibit.key.replace("/", "-"), figure, title.replace("->", "to")]
    return "-".join(re.sub(r"[^A-Za-z0-9.=+]+", "-", part).strip("-.") for part in parts if part)


def own_source(exhibit: ExhibitFile) -> list[str]:
    """Return the exhibit's own file, seen from where its runs were made; none if it is none.

    Args:
        exhibit: The exhibit.
    """
    if not exhibit.path.is_file():
        return []
    return [Path(os.path.relpath(exhibit.path, exhibit.root)).as_posix()]


def describe_seeds(counts: Iterable[int]) -> str:
    """Say over how many seeds something was averaged.

    Args:
        counts: Of the seeds, for each thing drawn.
    """
    found = sorted(set(counts) - {0})
    if not found:
        return "n = 0"
    if found == [1]:
        return "n = 1 seed, so no spread"
    span = f"{found[0]} to {found[-1]}" if len(found) > 1 else f"{found[0]}"
    return f"n = {span} seeds"


def describe_epochs(runs: Iterable[Mapping[str, Any]]) -> str:
    """Say how long runs were trained.

    Args:
        runs: Of an exhibit.
    """
    found = sorted({run["epochs"] for run in runs if run["row"] and run.get("epochs")})
    if not found:
        return "epochs unknown"
    if len(found) > 1:
        return f"{found[0]} to {found[-1]} epochs"
    return f"{found[0]} epoch{'s' if found[0] != 1 else ''}"

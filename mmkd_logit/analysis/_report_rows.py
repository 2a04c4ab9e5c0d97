"""The results rows of a folder: on which line a run's stands, and those that no exhibit has."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._report_files import Files
from ._report_runs import number as shown

NAME = "runs.jsonl"


class ResultsRows:
    """Knows the lines of ``RESULTS/runs.jsonl``.

    Args:
        results: The folder of results; it may have no such file.

    Raises:
        OSError: If the file cannot be read.
    """

    def __init__(self, results: Path) -> None:
        self.path = results / NAME
        self.rows: dict[int, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._numbers: dict[str, int] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                self.rows[number] = row
                self._numbers[_text(row)] = number
            elif line.strip() and number < len(lines):  # the last may be under way
                self.problems.append(f"{NAME}: line {number} is not a results row; remove it")

    def place(self, row: Mapping[str, Any] | None) -> str | None:
        """Say where a run's row stands, or None where there is nothing to say.

        Args:
            row: Of a run of an exhibit.
        """
        if not row or not self.rows:
            return None
        number = self._numbers.get(_text(row))
        return f"not in {NAME}" if number is None else f"{NAME}, line {number}"

    def others(self, records: Iterable[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
        """Return the rows that no run of some exhibits has, as the template takes them.

        Args:
            records: The exhibits.
        """
        used = {_text(run["row"]) for record in records for run in record["runs"] if run["row"]}
        rows = ((number, row) for number, row in self.rows.items() if _text(row) not in used)
        return [
            dict(
                line=number,
                what=_settings(row),
                seed=row.get("seed", ""),
                epochs=row.get("epochs", ""),
                top1=shown(_inner(row, "test").get("accuracy/top1")),
                finished=row.get("finished", ""),
            )
            for number, row in rows
        ]

    def describe(self, files: Files) -> dict[str, Any]:
        """Return path, link and SHA-256 of the file.

        Args:
            files: Of the report.
        """
        (described,) = files.describe([self.path.name], files.results)
        return described


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def _inner(row: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = row.get(field)
    return value if isinstance(value, dict) else {}


def _settings(row: Mapping[str, Any]) -> str:
    options = [f"{key}={value}" for key, value in _inner(row, "overrides").items()]
    numerics = row.get("numerics")
    told = [str(numerics)] if numerics not in (None, "float32") else []
    return " ".join([str(row.get("config", "")), *options, *told])

"""Files as a report names them: a link, where one is safe, and what they held."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote


class Files:
    """Names files for a report that lies in a folder.

    A link is relative, leads to a file that is there, and stays in a folder that the report lies
    in too: where the runs were made, or that of the results. Anything else is only named.

    Args:
        folder: Of the report.
        results: Of the results.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = _absolute(folder), _absolute(results)
        self._hashes: dict[Path, str | None] = {}

    def href(self, path: str | Path, root: Path) -> str | None:
        """Return the link to a file, or None.

        Args:
            path: Of the file, seen from ``root``.
            root: Where the runs were made.
        """
        target = _absolute(root / path)
        bases = [_absolute(root), self.results]
        if not any(target.is_relative_to(b) and self.folder.is_relative_to(b) for b in bases):
            return None
        if not os.path.isfile(target):
            return None
        # Also the colon is quoted: a file may be called as a protocol is.
        return quote(os.fsencode(os.path.relpath(target, self.folder)))

    def describe(self, paths: Iterable[str | Path], root: Path) -> list[dict[str, Any]]:
        """Return path, link and SHA-256 of files; None for those that cannot be read.

        Args:
            paths: Seen from ``root``.
            root: Where the runs were made.
        """
        return [
            dict(path=path, href=self.href(path, root), sha256=self._hash(_absolute(root / path)))
            for path in dict.fromkeys(map(str, paths))
        ]

    def link(self, label: str, path: str | None, root: Path) -> list[dict[str, Any]]:
        """Return a link by what it is called, or one that says where the file is or was.

        Args:
            label: Its text.
            path: Seen from ``root``; nothing for None.
            root: Where the runs were made.
        """
        if path is None:
            return []
        href = self.href(path, root)
        if href is None:
            there = self.exists(path, root)
            label = f"{label}: {path}" if there else f"{label} (gone: {path})"
        return [dict(label=label, href=href)]

    def exists(self, path: str, root: Path) -> bool:
        """Say whether a file is there.

        Args:
            path: Seen from ``root``.
            root: Where the runs were made.
        """
        return os.path.isfile(_absolute(root / path))

    def _hash(self, path: Path) -> str | None:
        if path not in self._hashes:
            self._hashes[path] = _sha256(path) if os.path.isfile(path) else None
        return self._hashes[path]


def _sha256(path: Path) -> str | None:
    known = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                known.update(block)
    except OSError:
        return None
    return known.hexdigest()


def _absolute(path: Path) -> Path:
    # Symbolic links stay: a folder of runs may lie on another disk.
    return Path(os.path.normpath(Path.cwd() / path))


class Names:
    """Hands out names for places in a page and for files, each once."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, text: str) -> str:
        """Return a name of letters, digits, ``.``, ``_`` and ``-``.

        Args:
            text: What it shall resemble.
        """
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:120] or "x"
        name, number = base, 1
        while name.lower() in self._used:  # of files too, where case may not count
            number += 1
            name = f"{base}-{number}"
        self._used.add(name.lower())
        return name

"""Rows of arrays, kept in files until all are there."""

import fcntl
import glob
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import numpy as np

from mmkd_logit._atomic_files import explained

from ._parts import Parts

_CHUNK = 2**21  # bytes
_OWNER = "owner"  # a file that the process holds a lock on while it lives


class PartFiles:
    """Files beside a target that rows are appended to, one for each field.

    They go with the object at the latest, so also where an error ends the program.

    Args:
        target: The file that they will become; its folder is made.
    """

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(target)
        new = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        owner = os.open(Path(new, _OWNER), os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):  # of a disk without locks, where nothing is removed
            fcntl.flock(owner, fcntl.LOCK_EX)
        folder = f"{new.removesuffix('.new')}.part"
        os.rename(new, folder)  # now others may see it
        self.parts = Parts(folder, 0, {})
        self._remove = weakref.finalize(self, _remove_in, os.getpid(), folder, owner)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append N rows.

        Args:
            arrays: (N, ...) by name.

        Raises:
            ValueError: If names, types or shapes are not those of the rows before.
        """
        fields = {name: (array.dtype.str, array.shape[1:]) for name, array in arrays.items()}
        if self.parts.rows and fields != self.parts.fields:
            raise ValueError(
                f"samples differ in what they hold: first {_words(self.parts.fields)}, later "
                f"{_words(fields)}"
            )
        for name, array in arrays.items():
            path = Path(self.parts.folder, name)
            try:
                with open(path, "ab") as file:
                    file.write(array.tobytes())
            except OSError as error:
                raise explained(error, path, array.nbytes) from error
        (count,) = {len(array) for array in arrays.values()}
        self.parts = Parts(self.parts.folder, self.parts.rows + count, fields)

    def remove(self) -> None:
        """Delete the files."""
        self._remove()


def _remove_left_behind(target: Path) -> None:
    """Remove the files of processes that were killed."""
    for owner in target.parent.glob(f"{glob.escape(f'.{target.name}.')}*.part/{_OWNER}"):
        with suppress(OSError), open(owner, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)


def _remove_in(process: int, folder: str, owner: int) -> None:
    if os.getpid() == process:  # not in a worker of a data loader, which has copies of all objects
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owner)


def merged(parts: Sequence[Parts], name: str, size: int) -> Iterator[np.ndarray]:
    """Give the rows of all processes in the data set's order, a few at a time.

    Process r of W has samples r, r + W, ... of the data set, as MMEngine's ``DefaultSampler``
    gives them out; what it repeats at the end is left out.

    Args:
        parts: Of each process, by rank.
        name: Of the field.
        size: Number of samples in the data set.
    """
    kind, shape = parts[0].fields[name]
    row = int(np.prod(shape, dtype=np.int64))
    step = max(1, _CHUNK // max(1, row * np.dtype(kind).itemsize * len(parts)))
    with ExitStack() as stack:
        files = [stack.enter_context(_reading(part, name)) for part in parts]
        for begin in range(0, size, step * len(parts)):
            total = min(step * len(parts), size - begin)
            chunk = np.empty((total, *shape), kind)
            for rank, file in enumerate(files):
                count = len(range(rank, total, len(parts)))
                mine = np.fromfile(file, kind, count * row)
                chunk[rank :: len(parts)] = mine.reshape(-1, *shape)
            yield chunk


def _reading(part: Parts, name: str) -> IO[bytes]:
    # Of a data set smaller than the processes are many, some have nothing.
    return open(Path(part.folder, name) if part.rows else os.devnull, "rb")


def check_parts(parts: Sequence[Parts], size: int) -> None:
    """Make sure that the processes have every sample of the data set.

    Args:
        parts: Of each process, by rank.
        size: Number of samples in the data set.

    Raises:
        ValueError: If they have too few or too many, differ in their fields, or write where the
            merging process does not see it.
    """
    for rank, part in enumerate(parts):
        wanted = len(range(rank, size, len(parts)))
        if not wanted <= part.rows <= wanted + (len(parts) > 1):
            raise ValueError(
                f"process {rank} of {len(parts)} has {part.rows} samples of a data set of {size}, "
                f"expected {wanted}; the data loader must give each once, in order: set its "
                "sampler=dict(type='DefaultSampler', shuffle=False) and drop_last=False"
            )
        if part.rows and part.fields != parts[0].fields:
            raise ValueError(
                f"processes differ in what samples hold: 0 {_words(parts[0].fields)}, {rank} "
                f"{_words(part.fields)}"
            )
        if part.rows and not Path(part.folder).is_dir():
            raise ValueError(
                f"process 0 does not see {part.folder} of process {rank}; write to a folder that "
                "all machines share"
            )


def _words(fields: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    texts = [f"{name} {kind[1:]}{list(shape)}" for name, (kind, shape) in fields.items()]
    return ", ".join(texts) or "nothing"

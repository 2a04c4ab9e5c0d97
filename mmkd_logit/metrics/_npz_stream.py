"""An ``.npz`` file that is written piece by piece."""

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmkd_logit._atomic_files import replacing


class NpzStream:
    """Write arrays to a zip file as ``numpy.load`` reads them, without holding them.

    The same arrays give the same bytes, whenever they are written.

    Args:
        archive: Open for writing.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, name: str, array: np.ndarray) -> None:
        """Write an array.

        Args:
            name: Of the array.
            array: With a type that needs no pickle.
        """
        self.write_rows(name, array.dtype.str, array.shape, [array])

    def write_rows(
        self, name: str, kind: str, shape: tuple[int, ...], chunks: Iterable[np.ndarray]
    ) -> None:
        """Write an array from its rows.

        Args:
            name: Of the array.
            kind: Its type.
            shape: Of the whole.
            chunks: Which are its rows, one after the other.

        Raises:
            ValueError: If they are not as many as the shape says.
        """
        header = dict(descr=kind, fortran_order=False, shape=shape)
        entry = zipfile.ZipInfo(f"{name}.npy")  # with zip's first day for a time
        expected, written = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize, 0
        with self._archive.open(entry, "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(chunk.tobytes())
                written += chunk.nbytes
        if written != expected:
            raise ValueError(f"{name} has {written} bytes, expected {expected} of {shape}")


@contextmanager
def npz_stream(path: Path) -> Iterator[NpzStream]:
    """Open a file that appears whole, at the end, or not at all.

    Args:
        path: Of the file; what is there is replaced.

    Raises:
        OSError: If it cannot be written; what was there is as before.
    """
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            yield NpzStream(archive)

"""Checkpoints that know whether they are whole.

A seal is the SHA-256 of all bytes before it, in the comment that a zip file may end with. PyTorch
and everybody else read such a file as any other; copied or moved, it keeps its seal.
"""

import errno
import hashlib
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

_BEGIN, _END, _END_LENGTH = b"PK\x03\x04", b"PK\x05\x06", 22
_TAG = b"sha256="
_SEAL_LENGTH = len(_TAG) + 64
_CHUNK = 2**22


def sealed(content: bytes) -> Iterator[bytes | memoryview]:
    """Give the parts of a zip file with its seal; of anything else, the content as it is.

    Args:
        content: Of the file.
    """
    end = content[-_END_LENGTH:]
    if len(end) < _END_LENGTH or end[:4] != _END or end[-2:] != b"\0\0":
        yield content
        return
    body, length = memoryview(content)[:-2], struct.pack("<H", _SEAL_LENGTH)
    digest = hashlib.sha256(body)
    digest.update(length)
    yield from (body, length, _TAG, digest.hexdigest().encode())


def why_damaged(path: str | Path, only_zip: bool = False) -> str | None:
    """Say what is wrong with the bytes of a checkpoint, or None where they are whole.

    One without a seal is compared with the checksums that PyTorch writes, which leave some bytes
    out. PyTorch's format of before 2020 has none.

    Args:
        path: Of a file that exists.
        only_zip: Whether a file in another format than PyTorch's is damaged too.

    Raises:
        OSError: If it cannot be read now, which says nothing of what it holds.
    """
    size = os.path.getsize(path)
    if size == 0:
        return "it is empty"
    with open(path, "rb") as file:
        begin = file.read(4)
        file.seek(max(0, size - _SEAL_LENGTH))
        seal = file.read()
    if seal.startswith(_TAG):
        own = _digest(path, size - _SEAL_LENGTH) == seal[len(_TAG) :]
        return None if own else "it does not fit its checksum"
    if begin != _BEGIN:
        return "it is no file of PyTorch's" if only_zip else None
    if seal[-_END_LENGTH:][:4] == _END and seal[-2:] != b"\0\0":
        return "it is cut short"
    return _why_no_zip(path)


def _digest(path: str | Path, length: int) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while length > 0:
            chunk = file.read(min(length, _CHUNK))
            if not chunk:
                break
            digest.update(chunk)
            length -= len(chunk)
    return digest.hexdigest().encode()


def _why_no_zip(path: str | Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.comment:
                return "its end is damaged"
            if not any(entry.CRC for entry in archive.infolist()):
                return None  # written without checksums, torch.serialization.set_crc32_options
            wrong = archive.testzip()
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the beginning
            raise
        return "it is cut short or damaged"
    except Exception:  # a damaged archive may fail in any way
        return "it is cut short or damaged"
    return None if wrong is None else f"{wrong} in it does not fit its checksum"

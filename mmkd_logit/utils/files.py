"""Files that appear whole or not at all, and what is wrong with those that are not."""

import errno
import fcntl
import hashlib
import mmap
import os
import re
import secrets
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# Files that appear whole or not at all, at whatever moment the process that writes them ends.
#
# Content goes to a ``.part`` file in the same folder, from there to the disk, and then takes the
# name of the file, which the system does at once. A writer holds a lock on its ``.part`` file,
# which the kernel takes away when the process ends; one that is not held was left by a killed
# process.

_PART = re.compile(r"\.(.+)\.\d+-[0-9a-f]{8}\.part", re.DOTALL)
_REASONS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "it is larger than files may be here (ulimit -f)",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ELOOP: "it is a link, which is not followed for writing; remove the link",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(
    path: str | Path, size: int | None = None, follow: bool = False
) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of another at the end, or never.

    A link is replaced and what it leads to stays. With ``follow``, for a file that a user names,
    the link stays: ``/dev/stdout`` is one.
    """
    is_link = os.path.islink(path) and not follow
    if not is_link and Path(path).exists() and not Path(path).is_file():
        with open(path, "wb") as direct:
            yield direct
        return
    target = Path(os.path.realpath(path) if follow else path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(target.parent, target.name)
        part, file = _open_part(target)
    except OSError as error:
        raise explained(error, path, size) from error
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        _swap(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        _close(file)
        # And not of a file that the content is read from.
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            raise explained(error, path, size) from error
        raise
    finally:
        _close(file)
    with suppress(OSError):  # make the change of names last through a power cut
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(path: str | Path, content: bytes, follow: bool = False) -> None:
    """Write a file at once."""
    with replacing(path, len(content), follow) as file:
        file.write(content)


def write_text(path: str | Path, text: str, errors: str = "strict", follow: bool = False) -> None:
    """Write a text at once, in UTF-8."""
    write_bytes(path, text.encode("utf-8", errors), follow)


def open_in_place(path: str | Path, flags: int) -> int:
    """Open or create a file that is written where it stands; a link there is an error."""
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise explained(error, path) from error
        raise


def explained(
    error: OSError, path: str | Path, size: int | None = None, name: str | None = None
) -> OSError:
    """Make an error of the system say what could not be written, how much and where."""
    if getattr(error, "is_explained", False):
        return error
    code = error.errno
    reason = _REASONS.get(code or 0) or error.strerror or str(error)
    text = f"{name or path} cannot be written: {reason}"
    if code in FULL:
        folder = next(each for each in Path(path).absolute().parents if each.is_dir())
        free = _megabytes(shutil.disk_usage(folder).free)
        wanted = "" if size is None else f"{_megabytes(size)} to write, "
        text += f" ({wanted}{free} free in {folder}); what was there before is whole. Make space, "
        text += "then run again"
    result = OSError(text)
    result.errno = code
    result.is_explained = True  # type: ignore[attr-defined]
    return result


def remove_parts(folder: str | Path, name: str | None = None) -> list[str]:
    """Remove ``.part`` files of processes that were killed, and no others."""
    removed = []
    with suppress(OSError):  # of folders that are not there, and files of others
        for entry in os.scandir(folder):
            found = _PART.fullmatch(entry.name)
            wanted = found and (name is None or found[1] == name[:200]) and entry.is_file()
            if wanted and _remove_unless_held(Path(entry.path)):
                removed.append(entry.name)
    return removed


def _remove_unless_held(part: Path) -> bool:
    with suppress(OSError), open(part, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
        return True
    return False


def _open_part(target: Path) -> tuple[Path, IO[bytes]]:
    while True:
        name = f".{target.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.part"
        part = target.with_name(name)
        file = open(part, "xb")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # remove_parts was faster
            file.close()
            continue
        except OSError:  # a disk without locks, where nothing is removed
            return part, file
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()


def _swap(part: Path, target: Path) -> None:
    os.replace(part, target)


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # what did not fit is tried once more
        file.close()


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 // 10 else f"{size / 2**10:.1f} KiB"


# PyTorch's checksums leave out bytes between the parts of its zip files, and one of 1,893 flipped
# in turn gave other weights unseen. Our checkpoints hold the SHA-256 of all bytes before it, in the
# comment that a zip file may end with; others read them as before.
_SEAL, _DIGEST_LENGTH = b"sha256=", 64


def sealed(content: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the parts of a zip file with the checksum of the whole, if it has no comment."""
    view = memoryview(content)
    if view[-22:-18] != b"PK\5\6" or view[-2:] != b"\0\0":
        return [view]
    parts: list[bytes | memoryview]
    parts = [view[:-2], struct.pack("<H", len(_SEAL) + _DIGEST_LENGTH)]
    digest = hashlib.sha256(parts[0])
    digest.update(parts[1])
    return [*parts, _SEAL, digest.hexdigest().encode()]


def why_damaged(path: str | Path, only_zip: bool = False) -> str | None:
    """Say what is wrong with the bytes of a checkpoint, or None where they are whole.

    One without our checksum is compared with those of its parts, which PyTorch writes; its format
    of before 2020 has none.
    """
    if os.path.getsize(path) == 0:
        return "it is empty"
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        end = content[-len(_SEAL) - _DIGEST_LENGTH :]
        if end.startswith(_SEAL):
            digest = hashlib.sha256(view[: -len(end)]).hexdigest().encode()
            return None if digest == end[len(_SEAL) :] else "it does not fit its checksum"
        if content[:4] != b"PK\3\4":
            return "it is no file of PyTorch's" if only_zip else None
        if end[-22:-18] == b"PK\5\6" and end[-2:] != b"\0\0":
            return "it is cut short or damaged"
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

"""Downloading checkpoints: whole, once for all processes, and what their name says they are."""

import hashlib
import http.client
import re
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

# As PyTorch, torchvision and OpenMMLab name files: resnet50-0676ba61.pth.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


def published_hash(name: str) -> str | None:
    """Return how the SHA-256 of a file begins, if its name says so, as published ones do.

    Args:
        name: The file's.

    Example:
        >>> published_hash('resnet50_8xb32_in1k_20210831-ea4938fa.pth')
        'ea4938fa'
    """
    found = _HASH_IN_NAME.search(name)
    return found and found.group(1)


def cached_path(url: str) -> Path:
    """Return where a download is kept: in torch's cache, under the name that it has there.

    Args:
        url: Its address.

    Raises:
        ValueError: If the address names no file.
    """
    name = urlparse(url).path.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise ValueError(f"{url} names no file to download")
    return Path(torch.hub.get_dir(), "checkpoints", name)


def fetch(url: str) -> tuple[Path, bool]:
    """Download a file, or take it from torch's cache.

    A file whose name holds its hash is compared with it, in the cache too, where another is
    downloaded again. The first process downloads; all fail if it does.

    Args:
        url: Its address.

    Returns:
        Where it is, and whether it was downloaded just now.

    Raises:
        OSError: If it cannot be downloaded.
        ValueError: If it is not the file that its name says; it is not kept then.
    """
    path = cached_path(url)
    outcome = [_try(url, path) if is_main_process() else None]
    broadcast_object_list(outcome)  # else the others would wait for a download that failed
    done = outcome[0]
    if not is_main_process() and not isinstance(done, Exception):
        done = _try(url, path)  # finds it, unless this is another machine
    if isinstance(done, Exception):
        raise done
    return path, bool(done)


def _try(url: str, path: Path) -> bool | ValueError | OSError:
    try:
        return _provide(url, path)
    except (ValueError, OSError) as error:
        return error


def _provide(url: str, path: Path) -> bool:
    """Have the file in the cache; say whether it was downloaded for that."""
    expected, wrong = published_hash(path.name), ""
    if path.is_file():
        if expected is None or _hash(path).startswith(expected):
            return False
        wrong = f"; the one in {path} is another file than its name says"
        print_log(f"{path} is not the file that its name says; it is downloaded again", "current")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), expected, progress=sys.stderr.isatty())
    except RuntimeError as error:  # the hash is another; torch has removed its partial file
        raise ValueError(
            f"{url} is refused: it is not the file that its name says ({error}), so it was damaged "
            "on its way or exchanged. If you trust it, download it yourself and name the file"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise OSError(f"{url} cannot be downloaded: {error}{wrong}") from None
    return True


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

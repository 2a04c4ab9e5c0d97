"""The files of dumped logits: where they lie, what they are of, whether that still holds."""

import argparse
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from .fingerprint import fingerprint_of, weights_hash
from .method import describe_method
from .results import plain
from .teachers import FINAL

FORMAT = 1
FOLDER = "logits"  # in a work folder
SPLITS = ("train", "val", "test")
USUAL_SPLITS = ("train", "test")  # where none is named
# What decides the arrays; the rest of an identity says how they came about.
_CONTENT = ("format", "fingerprint", "weights", "split", "data")


def add_dump_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--dump-logits``, which gives a list of splits, or None."""
    parser.add_argument(
        "--dump-logits",
        nargs="*",
        action=_Splits,
        choices=SPLITS,
        metavar="SPLIT",
        help="in the end write the logits of every sample to WORK_DIR/logits/SPLIT.npz, for "
        "figures: of train (un-augmented), val, test; default: train test",
    )


class _Splits(argparse.Action):
    """Takes no names for the usual ones."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, list(dict.fromkeys(values)) or list(USUAL_SPLITS))


def dump_path(work_dir: str | Path, split: str) -> Path:
    """Return where a run keeps the logits of a split.

    Args:
        work_dir: Its folder.
        split: Of :data:`SPLITS`.
    """
    return Path(work_dir, FOLDER, f"{split}.npz")


def identity_of(
    cfg: Config,
    config: str,
    origin: Mapping[str, Any],
    weights: str,
    split: str,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Say what the logits of a split are of.

    Args:
        cfg: The complete config.
        config: Its file.
        origin: Of ``origin_of``, from before the Runner changed the config.
        weights: The hash of the checkpoint's weights.
        split: Of :data:`SPLITS`.
        more: ``data``, the hash of the split's samples; device, versions, commit.

    Returns:
        What JSON can hold. ``method`` is that of :func:`describe_method`.
    """
    content = {key: origin[key] for key in ("fingerprint", "seed", "teachers")}
    return plain(
        dict(
            content,
            format=FORMAT,
            config=config,
            weights=weights,
            split=split,
            method=describe_method(cfg),
            **more,
        )
    )


def read_identity(path: str | Path) -> dict[str, Any] | None:
    """Return what a dump says it is of; None where there is none, or no whole one.

    Args:
        path: The ``.npz`` file.
    """
    try:
        # Opened here: of a file that is cut off numpy would not close its own.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            identity = json.loads(str(file["identity"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return identity if isinstance(identity, dict) else None


def is_current(path: str | Path, identity: Mapping[str, Any]) -> bool:
    """Whether a dump holds what it would hold if it were made now.

    Commit and versions are not compared, as for rows of results.

    Args:
        path: The ``.npz`` file.
        identity: Of what is wanted, or a part of it.
    """
    found = read_identity(path)
    keys = [key for key in _CONTENT if key in identity]
    return found is not None and all(found.get(key) == identity[key] for key in keys)


def lacking_dumps(cfg: Config, splits: Iterable[str]) -> list[str]:
    """Return the splits whose logits a finished run has not, or only those of other weights.

    The data set is not read: that its samples are the same is left to those who write dumps.

    Args:
        cfg: The run's complete config, without ``resume``.
        splits: Of :data:`SPLITS`.
    """
    splits = list(splits)
    if not splits:
        return []
    weights = weights_hash(Path(cfg.work_dir, FINAL))
    identity = dict(format=FORMAT, fingerprint=fingerprint_of(cfg), weights=weights)
    found = {split: dump_path(cfg.work_dir, split) for split in splits}
    return [s for s, path in found.items() if not is_current(path, {**identity, "split": s})]


def find_dumps(work_dir: str | Path, weights: str | None = None) -> dict[str, str]:
    """Find the dumps in a run's folder, by split.

    Args:
        work_dir: The folder.
        weights: Only those of weights with this hash; None for all.
    """
    paths = sorted(Path(work_dir, FOLDER).glob("*.npz"))
    if weights is not None:
        paths = [path for path in paths if (read_identity(path) or {}).get("weights") == weights]
    return {path.stem: str(path) for path in paths}

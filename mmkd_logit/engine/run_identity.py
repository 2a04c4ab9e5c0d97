"""What a run is made of, and what another differs in that shall go on from its checkpoint."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from .config_hash import computed_content
from .provenance import origin_of

# Fields that change nothing of what is trained, or nothing of what is trained already.
_HARMLESS = (
    *("train_cfg.max_epochs", "train_cfg.max_iters"),
    *("test_dataloader", "test_cfg", "tta_model", "tta_pipeline"),
    *("train_dataloader.num_workers", "train_dataloader.prefetch_factor"),
    *("val_dataloader.num_workers", "val_dataloader.prefetch_factor", "val_dataloader.batch_size"),
)
_BATCH = "train_dataloader.batch_size"
_FILES = ("file", "matrix", "scores")


def describe_run(cfg: Config) -> dict[str, Any]:
    """Say what a run is made of.

    Args:
        cfg: A complete config, without ``resume``.

    Returns:
        ``config``, the JSON of what it computes, and ``origin``, as of :func:`origin_of`.
    """
    return dict(config=computed_content(cfg), origin=origin_of(cfg))


def list_changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """Say what two runs differ in that decides their weights.

    The number of epochs and of workers, and what is tested at the end, may differ; so may files
    that lie elsewhere, and the number of processes while an iteration has as many images.

    Args:
        before: Of :func:`describe_run`, of a checkpoint.
        now: Of the run that shall go on.

    Returns:
        One text for each difference.

    Raises:
        ValueError: If ``before`` is no such description.
    """
    try:
        theirs, origin = _read(before)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"what the checkpoint says of its run is damaged ({error!r}); resume an earlier one"
        ) from None
    ours, own = _read(now)
    teachers = origin["teachers"] == own["teachers"]
    files = sorted(origin["files"].values()) == sorted(own["files"].values())
    changed = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    told = [
        f"{key}: {_short(theirs.get(key))} -> {_short(ours.get(key))}"
        for key in changed
        if not _is_harmless(key)
        and not (teachers and _names_teacher(key))
        and not (files and _names_file(key))
    ]
    if not teachers and not any(map(_names_teacher, changed)):
        told.append(f"the teacher's weights: {_hashes(origin)} -> {_hashes(own)}")
    if not files and not any(map(_names_file, changed)):
        told.append(f"the content of {', '.join(sorted(own['files']))}")
    if _images(theirs, origin) != _images(ours, own):
        sizes = [f"{o['processes']} x {f.get(_BATCH)}" for f, o in ((theirs, origin), (ours, own))]
        told.append(f"processes x {_BATCH}: {' -> '.join(sizes)}")
    return told


def _read(description: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the config by their dotted names, and the origin."""
    fields = dict(_flatten(json.loads(description["config"])))
    origin = description["origin"]
    list(origin["teachers"])
    origin["files"].values()
    _images(fields, origin)
    return fields, origin


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    if not items:
        yield name, value
    for key, item in items:
        yield from _flatten(item, f"{name}.{key}" if name else str(key))


def _images(fields: Mapping[str, Any], origin: Mapping[str, Any]) -> int | None:
    """Return how many images an iteration has over all processes, where the config says so."""
    size = fields.get(_BATCH)
    return origin["processes"] * size if isinstance(size, int) else None


def _is_harmless(key: str) -> bool:
    names = (*_HARMLESS, _BATCH)  # the latter is told with the processes
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _names_teacher(key: str) -> bool:
    return "teacher" in key and key.endswith(".checkpoint")


def _names_file(key: str) -> bool:
    return key.startswith("train_dataloader.dataset") and key.rpartition(".")[2] in _FILES


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hashes(origin: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(text[:12] for text in origin["teachers"])

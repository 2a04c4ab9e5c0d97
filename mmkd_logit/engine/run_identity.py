"""What another run differs in that shall go on from a checkpoint."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .fingerprint import reduce_content

# Fields that may differ: a run may be made longer, and batches are compared with the processes.
_BATCH, _PROCESSES = "train_dataloader.batch_size", "processes"
_HARMLESS = ("train_cfg.max_epochs", "train_cfg.max_iters", _BATCH, _PROCESSES)


def list_changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """Say what two runs differ in that decides their weights.

    The number of epochs may differ, and the number of processes while an iteration has as many
    images.

    Args:
        before: The content of the run of a checkpoint, as of
            :func:`~mmkd_logit.engine.fingerprint.computed_content`.
        now: That of the run that shall go on.

    Returns:
        One text for each difference.

    Raises:
        ValueError: If ``before`` is no such content.
    """
    if not isinstance(before, dict) or not isinstance(before.get("processes"), int):
        raise ValueError("what the checkpoint says of its run is damaged; resume an earlier one")
    theirs, ours = (dict(_flatten(reduce_content(each))) for each in (before, now))
    changed = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    told = [
        f"{key}: {_short(theirs.get(key))} -> {_short(ours.get(key))}"
        for key in changed
        if key not in _HARMLESS
    ]
    if _images(theirs) != _images(ours):
        sizes = [f"{each[_PROCESSES]} x {each.get(_BATCH)}" for each in (theirs, ours)]
        told.append(f"processes x {_BATCH}: {' -> '.join(sizes)}")
    return told


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


def _images(fields: Mapping[str, Any]) -> int | None:
    """Return how many images an iteration has over all processes, where the config says so."""
    size = fields.get(_BATCH)
    return fields[_PROCESSES] * size if isinstance(size, int) else None


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

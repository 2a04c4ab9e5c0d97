"""What a report says of one run: by what it was trained, and what its results row knows."""

import math
from collections.abc import Mapping
from typing import Any

_KINDS = {"ce": "cross-entropy", "kl": "KL", "mse": "MSE between logits"}


def describe_method(method: Mapping[str, Any]) -> str:
    """Say in a line by what a run was trained.

    Args:
        method: Of an exhibit file.
    """
    what = _KINDS.get(method["kind"]) or method.get("loss") or "several losses"
    sizes = dict(tau="τ", alpha="α")
    if method["kind"] != "ce":
        told = [f"{s} = {_size(method[k])}" for k, s in sizes.items() if method.get(k) is not None]
        what = ", ".join([what, *told])
    parts = [method.get("network"), what]
    if method.get("teacher_config"):
        parts.append(f"teacher {method['teacher_config']}")
    noise = method.get("label_noise")
    if noise:
        rate = noise.get("rate")
        parts.append(f"{noise.get('kind')} label noise" + (f" {rate:g}" if rate else ""))
    return " · ".join(filter(None, parts))


def _size(value: Any) -> str:
    if isinstance(value, str):
        return "∞" if value == "inf" else value
    return f"{value:g}"


def run_facts(run: Mapping[str, Any], place: str | None = None) -> list[tuple[str, str]]:
    """List what is known of a run, in words.

    Args:
        run: Of an exhibit file.
        place: Where its results row stands.
    """
    row = run["row"] or {}
    facts: list[tuple[str, Any]] = [
        ("config", run["config"]),
        ("fingerprint", row.get("fingerprint")),
        ("work folder", run["work_dir"]),
        ("own seed", row["seed"] if row.get("seed") not in (None, run["seed"]) else None),
        ("epochs", _epochs(run, row)),
        ("taught by", ", ".join(run.get("teachers") or [])),
        ("teachers' weights", ", ".join(filter(None, row.get("teachers") or []))),
        ("weights", row.get("weights")),
        ("data", _pairs(row.get("data"))),
        ("numerics", row.get("numerics")),
        ("device", row.get("device")),
        ("processes", row["processes"] if row.get("processes") not in (None, 1) else None),
        ("training", _seconds(row)),
        ("commit", _commit(row)),
        ("versions", _pairs(row.get("versions"))),
        ("finished", row.get("finished")),
        ("results row", place),
    ]
    return [(term, str(value)) for term, value in facts if value not in (None, "")]


def _epochs(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    told = [str(run["epochs"])] if run.get("epochs") is not None else []
    told += [f"{row['iterations']} iterations"] if row.get("iterations") is not None else []
    told += [f"resumed at {row['resumed_at']}"] if row.get("resumed_at") else []
    return ", ".join(told)


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (values or {}).items())


def _commit(row: Mapping[str, Any]) -> str:
    if not row.get("commit"):
        return ""
    return f"{row['commit']}{', with files changed' if row.get('dirty') else ''}"


def _seconds(row: Mapping[str, Any]) -> str:
    if row.get("train_seconds") is None:
        return ""
    together = f", {row['together']} runs together" if (row.get("together") or 1) > 1 else ""
    return f"{duration(row['train_seconds'])}{together}"


def duration(seconds: float) -> str:
    """Return a time in the units that fit it.

    Args:
        seconds: The time.
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.1f} h"


def number(value: Any, signed: bool = False) -> str:
    """Return a number as tables show it; nothing for what is none.

    Args:
        value: Of JSON.
        signed: Whether a plus is written.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return ""
    try:
        size = ".2f" if not math.isfinite(value) or abs(value) < 1e6 else ".4g"
        return f"{float(value):{'+' if signed else ''}{size}}".replace("-", "−")
    except OverflowError:  # a whole number that no float holds
        return ""

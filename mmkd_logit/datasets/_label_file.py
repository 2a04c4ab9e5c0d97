"""Reading arrays of labels."""

from typing import Any


def read_arrays(path: str, only: str | None = None) -> dict[str, Any]:
    raise NotImplementedError


def read_labels(path: str, key: str | None, clean_key: str | None) -> tuple[Any, Any]:
    raise NotImplementedError

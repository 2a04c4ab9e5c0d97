"""What one process has written."""

from typing import NamedTuple


class Parts(NamedTuple):
    """What one process has written.

    Attributes:
        folder: Of its files, which the merging process must see.
        rows: How many there are.
        fields: Type and shape of a row, by name.
    """

    folder: str
    rows: int
    fields: dict[str, tuple[str, tuple[int, ...]]]

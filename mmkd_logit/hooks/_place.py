"""Where a run is."""

from typing import NamedTuple


class Place(NamedTuple):
    """Where a run goes on from a checkpoint that is written now.

    Attributes:
        epoch: Of the next iteration.
        iter: Iterations done.
        batch: Batches served of that epoch, or of an endless stream.
        validated: Whether the validation that is due before the next iteration, if any, is done.
    """

    epoch: int = 0
    iter: int = 0
    batch: int = 0
    validated: bool = True


def read_place(value: object) -> Place:
    """Read the place that a checkpoint holds.

    Args:
        value: A dict of the fields.

    Raises:
        ValueError: If it is no place.
    """
    numbers = Place._fields[:3]
    if isinstance(value, dict) and set(value) == set(Place._fields):
        right = all(type(value[name]) is int and value[name] >= 0 for name in numbers)
        if right and isinstance(value["validated"], bool):
            return Place(**value)
    raise ValueError(f"{value!r} is no place in a run, which has {', '.join(Place._fields)}")

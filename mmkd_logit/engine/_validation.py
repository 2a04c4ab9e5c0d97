"""The validation that belongs to a place in a training."""

from typing import Any


def validate_if_due(loop: Any, done: int, end: int) -> None:
    """Validate, if it is time, as MMEngine's training loops do, and note that it is done.

    Args:
        loop: A training loop of ours.
        done: How many of its epochs or iterations are done.
        end: How many it has.
    """
    loop._decide_current_val_interval()
    due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)
    if loop.runner.val_loop is not None and due:
        loop.runner.val_loop.run()
    loop.place = loop.place._replace(validated=True)

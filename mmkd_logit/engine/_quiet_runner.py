"""MMEngine's Runner, without what it writes before anything has been checked."""

from .ordered_runner import OrderedRunner


class QuietRunner(OrderedRunner):
    """A Runner that leaves the config of an earlier run in the work folder where it is.

    MMEngine writes its own over it when the model is built; ``tools/train.py`` lets it be written
    when training begins, and ``tools/test.py``, whose config is not the one that was trained by,
    never.
    """

    def dump_config(self) -> None:
        """Write nothing."""

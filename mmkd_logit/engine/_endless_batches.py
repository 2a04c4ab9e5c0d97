"""A data loader that begins again when it ends."""

from typing import Any

from torch.utils.data import DataLoader


class EndlessBatches:
    """What MMEngine's loop by iterations reads, opened when it is first read on either stack.

    Args:
        loader: The data loader.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._iterator: Any = None
        self._passes = 0

    def __iter__(self) -> "EndlessBatches":
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self.open()
        try:
            return next(self._iterator)
        except StopIteration:
            self.begin_pass(self._passes + 1)
            self.open()
            return next(self._iterator)

    def open(self) -> None:
        """Make the loader ready to be read."""
        self._iterator = iter(self._loader)

    def begin_pass(self, number: int) -> None:
        """Tell the sampler which pass through the data begins.

        Args:
            number: From 0 on.
        """
        self._passes = number
        sampler = self._loader.sampler
        if not hasattr(sampler, "set_epoch"):
            sampler = getattr(self._loader.batch_sampler, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)

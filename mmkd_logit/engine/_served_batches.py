"""The batches of indices of a data loader, of which some were served before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader


class ServedBatches:
    """Stands for a loader's batch sampler, and passes over batches without loading them.

    Args:
        sampler: What it stands for; asked for everything else.
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._rest: _Rest | None = None
        self._closed = False

    @classmethod
    def install(cls, loader: DataLoader) -> "ServedBatches":
        """Let a loader read its indices from here.

        Args:
            loader: Of which there is no iterator yet.
        """
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        found = getattr(loader, name)
        if not isinstance(found, cls):
            found = cls(found)
            # torch refuses an assignment, since others might not fit the batch size.
            vars(loader)[name] = found
        return found

    def __getattr__(self, name: str) -> Any:
        if name == "_sampler":  # of an object that is being made
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator:
        if self._closed:
            return iter(())
        if self._rest is not None and not self._rest.begun:
            return self._rest  # a loader with workers asks twice before it reads
        self._rest = None
        return iter(self._sampler)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Serve nothing meanwhile, whoever opens the loader."""
        self._closed = True
        try:
            yield
        finally:
            self._closed = False

    def pass_over(self, count: int, begin_pass: Callable[[int], None] | None = None) -> int:
        """Let the next iterator begin after some batches.

        Args:
            count: How many.
            begin_pass: Called with 1, 2 and so on where the batches of a pass are used up, before
                the next pass begins; None where there is no other pass.

        Returns:
            How many passes were used up.
        """
        batches, passes = iter(self._sampler), 0
        for _ in range(count):
            if next(batches, None) is not None:
                continue
            if begin_pass is None:
                break
            passes += 1
            begin_pass(passes)
            batches = iter(self._sampler)
            next(batches)
        self._rest = _Rest(batches)
        return passes


class _Rest:
    """What is left of the batches, which knows whether somebody reads it."""

    def __init__(self, batches: Iterator) -> None:
        self._batches = batches
        self.begun = False

    def __iter__(self) -> "_Rest":
        return self

    def __next__(self) -> Any:
        self.begun = True
        return next(self._batches)

"""Samplers that say which randomness belongs to a sample."""

from collections.abc import Callable, Iterator, Sized
from functools import partial
from itertools import repeat
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import sync_random_seed
from mmpretrain.datasets import RepeatAugSampler
from mmpretrain.registry import DATA_SAMPLERS as MMPRETRAIN_DATA_SAMPLERS
from torch.utils.data import Sampler

from mmkd_logit.registry import DATA_SAMPLERS

from .sample_key import SampleKey


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Yield what another sampler does, each index with seed and epoch.

    :class:`InMemoryDataset` and :class:`SeededDataset` make pictures from these keys. They travel
    with the indices, so persistent workers know the epoch. The epoch is the one that MMEngine
    sets before each; under ``InfiniteSampler``, where nobody sets one, it counts the passes
    through the data, from the place in the stream that all processes share. Resuming is MMEngine's
    affair and moves the epoch with it.

    Args:
        dataset: What is sampled; the Runner passes it.
        sampler: Config of a sampler of mmengine or mmpretrain.
        seed: The Runner passes its own, or None with ``diff_rank_seed``: then all processes agree
            on a random one, as mmengine's samplers do.

    Raises:
        ValueError: If ``sampler`` is no config of one, or ``RepeatAugSampler``, which shows a
            sample in several pictures an epoch.

    Example:
        >>> sampler = SeededSampler(
        ...     range(3), dict(type='DefaultSampler', shuffle=False), seed=1)
        >>> sampler.set_epoch(7)
        >>> list(sampler)[-1]
        SampleKey(seed=1, epoch=7, idx=2)
    """

    def __init__(self, dataset: Sized, sampler: Any, seed: int | None = None) -> None:
        if not isinstance(sampler, dict):
            raise ValueError(
                "sampler must be the config of one, such as dict(type='DefaultSampler', "
                f"shuffle=True), got {sampler!r}"
            )
        self.seed = int(sync_random_seed() if seed is None else seed)
        self.sampler = MMPRETRAIN_DATA_SAMPLERS.build(
            sampler, default_args=dict(dataset=dataset, seed=self.seed)
        )
        if isinstance(self.sampler, RepeatAugSampler):
            raise ValueError(
                "RepeatAugSampler shows a sample in several pictures an epoch, and a SeededSampler "
                "knows one; use RepeatAugSampler by itself"
            )
        self._epoch = 0
        self._read = 0  # of an endless stream, by this process

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[SampleKey]:
        if isinstance(self.sampler, InfiniteSampler):
            yield from self._endless(self.sampler)
        else:
            # What SampleKey(...) does, without a call of Python's for each sample.
            make = partial(tuple.__new__, SampleKey)
            yield from map(
                make, zip(repeat(self.seed), repeat(self._epoch), map(int, self.sampler))
            )

    def _endless(self, sampler: InfiniteSampler) -> Iterator[SampleKey]:
        for index in sampler:
            place = self._read * sampler.world_size + sampler.rank
            self._read += 1  # as the inner one, which goes on where it was left
            yield SampleKey(self.seed, place // sampler.size, int(index))

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; MMEngine calls this.

        Args:
            epoch: From 0 on.
        """
        self._epoch = int(epoch)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    @property
    def skip(self) -> Callable[[int], None]:
        """Go to a place in an endless stream; MMEngine asks whether there is such a method.

        Raises:
            AttributeError: If the wrapped sampler has none.
        """
        inner = self.sampler.skip

        def skip(num_samples: int) -> None:
            inner(num_samples)
            self._read = num_samples

        return skip

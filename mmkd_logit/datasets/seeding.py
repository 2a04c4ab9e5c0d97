"""Order and transforms as functions of (seed, epoch, sample)."""

from collections.abc import Callable, Iterator, Sized
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import sync_random_seed
from mmpretrain.datasets import RepeatAugSampler
from mmpretrain.registry import DATA_SAMPLERS as SAMPLERS
from torch.utils.data import Sampler

from mmkd_logit.registry import DATA_SAMPLERS, DATASETS, find_class
from mmkd_logit.utils.arguments import arguments_of, check_count, check_flag, refuse_unknown

from .draws import SampleKey
from .wrapper import SampleWrapper


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Yield what another sampler yields, each index with seed and epoch.

    :class:`InMemoryDataset` and :class:`SeededDataset` make pictures from these keys. They travel
    with the indices, so that persistent workers know the epoch. It is the one that MMEngine sets
    before each epoch; under ``InfiniteSampler``, which has none, it counts the passes through the
    data, by the position in the stream that all processes share. Resuming moves the epoch with
    MMEngine's own.

    Args:
        dataset: What is sampled; the Runner passes it.
        sampler: Config of a sampler of mmengine or mmpretrain.
        seed: The Runner passes its own, or None with ``diff_rank_seed``: then all processes agree
            on a random one, as mmengine's samplers do.

    Raises:
        ValueError: If an argument is of another kind, ``sampler`` is not the config of one, or it
            is ``RepeatAugSampler``, which shows a sample in several pictures an epoch.

    Example:
        >>> sampler = SeededSampler(
        ...     range(3), dict(type='DefaultSampler', shuffle=False), seed=1)
        >>> sampler.set_epoch(7)
        >>> list(sampler)[-1]
        SampleKey(seed=1, epoch=7, idx=2)
    """

    def __init__(self, dataset: Sized, sampler: Any, seed: int | None = None) -> None:
        _check_sampler(sampler)
        if not isinstance(dataset, Sized):
            raise ValueError(f"dataset must be a data set with a length, got {dataset!r}")
        self.seed = sync_random_seed() if seed is None else check_count("seed", seed, 0)
        self.sampler = SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=self.seed))
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
            epoch = self._epoch  # an epoch in progress keeps its number
            yield from (SampleKey(self.seed, epoch, int(index)) for index in self.sampler)

    def _endless(self, sampler: InfiniteSampler) -> Iterator[SampleKey]:
        for index in sampler:
            place = self._read * sampler.world_size + sampler.rank
            self._read += 1
            yield SampleKey(self.seed, place // sampler.size, int(index))

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; MMEngine calls this."""
        self._epoch = int(epoch)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    @property
    def skip(self) -> Callable[[int], None]:
        """Move in an endless stream; without an inner ``skip`` there is no such attribute."""
        inner = self.sampler.skip

        def skip(num_samples: int) -> None:
            inner(num_samples)
            self._read = num_samples

        return skip


def _check_sampler(sampler: Any) -> None:
    """Check the config of the wrapped sampler; MMEngine would build it with wrong flags too."""
    if not isinstance(sampler, dict) or not sampler.get("type"):
        raise ValueError(
            "sampler must be the config of one, such as dict(type='DefaultSampler', "
            f"shuffle=True), got {sampler!r}"
        )
    kind = find_class("sampler", SAMPLERS, sampler["type"])
    names, open_ = arguments_of(kind)
    if not open_:
        refuse_unknown(f"the sampler {kind.__name__}", sampler, ("type", "_scope_", *names))
    for name in ("shuffle", "round_up"):
        if name in sampler:
            check_flag(name, sampler[name])


@DATASETS.register_module()
class SeededDataset(SampleWrapper):
    """Make what another data set's transforms draw a function of seed, epoch and sample.

    For each sample NumPy's, Python's and torch's global CPU generator are seeded from the keys of
    :class:`SeededSampler`, so that neither the number of workers or processes nor the batch size
    nor resuming changes a picture; a sample that replaces an unreadable one is always the same,
    too. Outside of loader workers the generators' states are restored. Under a sampler that yields
    plain integers the data set is the wrapped one.

    It may stand inside or outside of :class:`DataSubset` and :class:`NoisyLabelDataset`, whose
    pictures are then the same. Transforms with a generator of their own are not seeded.

    Args:
        dataset: Config or instance of a data set of mmengine or mmpretrain, also of one that
            wraps others, such as ``KFoldDataset``.
        lazy_init: Read nothing until needed.

    Raises:
        ValueError: If ``dataset`` is something else, or in memory, where pictures are functions
            of the sample already.

    Example:
        >>> from mmkd_logit.datasets import SampleKey
        >>> crop = dict(type='mmpretrain.RandomCrop', crop_size=6)
        >>> dataset = SeededDataset(dict(type='mmkd_logit.Digits', pipeline=[crop]))
        >>> key = SampleKey(seed=0, epoch=3, idx=5)
        >>> bool((dataset[key]['img'] == dataset[key]['img']).all())
        True
    """

    seeded = True

    def _check_dataset(self) -> None:
        names = ("full_init", "metainfo", "__len__")
        missing = [name for name in names if not hasattr(self.dataset, name)]
        if missing:
            raise ValueError(
                "SeededDataset wraps a data set of mmengine or mmpretrain, or its config; "
                f"{type(self.dataset).__name__} has no {', '.join(missing)}"
            )
        if self.in_memory:
            raise ValueError("pictures in memory are functions of the sample; leave this out")

    def _get(self, idx: int) -> Any:
        return self.dataset[idx]

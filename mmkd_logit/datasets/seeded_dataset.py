"""Randomness by sample, for any transforms."""

from typing import Any

from mmkd_logit._checks import check_flag
from mmkd_logit.registry import DATASETS

from ._sample_wrapper import _SampleWrapper


@DATASETS.register_module()
class SeededDataset(_SampleWrapper):
    """Make what another data set's transforms draw a function of seed, epoch and sample.

    For each sample numpy's, Python's and torch's global CPU generator are seeded from what
    :class:`SeededSampler` yields, so that neither the number of workers or processes nor the batch
    size nor resuming changes a picture; a sample that replaces an unreadable one is always the
    same, too. Outside of loader workers the generators are then put back. Under a sampler that
    yields plain integers the data set is the wrapped one.

    It may stand inside or outside of :class:`DataSubset` and :class:`NoisyLabelDataset`, whose
    pictures are then the same. Transforms that keep a generator of their own are out of its reach.

    Args:
        dataset: Config or instance of a data set of mmengine or mmpretrain, also of one that
            wraps others, such as ``KFoldDataset``.
        lazy_init: Read nothing until needed.

    Raises:
        ValueError: If ``dataset`` is something else, or in memory, where pictures are functions
            of the sample anyway.

    Example:
        >>> from mmkd_logit.datasets import SampleKey
        >>> crop = dict(type='mmpretrain.RandomCrop', crop_size=6)
        >>> dataset = SeededDataset(dict(type='mmkd_logit.Digits', pipeline=[crop]))
        >>> key = SampleKey(seed=0, epoch=3, idx=5)
        >>> bool((dataset[key]['img'] == dataset[key]['img']).all())
        True
    """

    def __init__(self, dataset: Any, lazy_init: bool = False) -> None:
        check_flag("lazy_init", lazy_init)
        super().__init__(dataset, lazy_init=True)
        if self.in_memory:
            raise ValueError("pictures in memory are functions of the sample; leave this out")
        if not lazy_init:
            self.full_init()

    @classmethod
    def _check(cls, dataset: Any) -> None:
        missing = [
            name for name in ("full_init", "metainfo", "__len__") if not hasattr(dataset, name)
        ]
        if missing:
            raise ValueError(
                "SeededDataset wraps a data set of mmengine or mmpretrain, or its config; "
                f"{type(dataset).__name__} has no {', '.join(missing)}"
            )

    @property
    def seeded(self) -> bool:
        """Yes."""
        return True

    def _prepare(self) -> None:
        """Nothing."""

    def _get(self, idx: int) -> Any:
        return self.dataset[idx]

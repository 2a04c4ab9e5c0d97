"""A data set with wrong labels."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmengine.dataset import force_full_init

from mmkd_logit._checks import check_flag
from mmkd_logit.registry import DATASETS

from ._sample_wrapper import _SampleTable, _SampleWrapper, gather
from .label_noise import LabelNoise
from .sample_key import _Keys


@DATASETS.register_module()
class NoisyLabelDataset(_SampleWrapper):
    """Give the samples of another data set noisy labels.

    ``gt_label`` is the noisy label and ``clean_label`` the true one, before the pipeline in
    ``get_data_info`` and after it in the metainfo of the ``DataSample``. ``metainfo`` says under
    ``label_noise`` what :meth:`LabelNoise.describe` does, from the moment the labels are read;
    MMEngine copies it to the checkpoints as ``meta['dataset_meta']``.

    Rank, worker and order of access change nothing. Runs of several seeds share the labels; tie
    them to the run with ``train_dataloader.dataset.seed=...`` beside ``--seed``.

    Args:
        dataset: Config or instance of the single-label data set with the clean labels.
        kind: See :class:`LabelNoise`, also for the following.
        rate: Share of labels that change.
        seed: Of the noise; 0 where none is given.
        per_class: Whether the rate holds in each class (the default) or overall.
        matrix: For kind ``'transition'``.
        file: For kind ``'file'``.
        key: For kind ``'file'``.
        clean_key: For kind ``'file'``.
        num_classes: K; by default the number of ``classes`` in the metainfo.
        on_test: Allow noise on data for testing.
        lazy_init: Read nothing until needed.

    Raises:
        ValueError: If an argument is wrong, the data set is for testing or noisy already, or its
            labels do not fit.
        FileNotFoundError: If ``file`` or the file of ``matrix`` does not exist.

    Example:
        >>> dataset = NoisyLabelDataset(
        ...     dict(type='mmkd_logit.Digits'), kind='symmetric', rate=0.4)
        >>> wrong = dataset.get_gt_labels() != dataset.get_clean_labels()
        >>> int(wrong.sum()), dataset.metainfo['label_noise']['samples']
        (360, 901)
    """

    def __init__(
        self,
        dataset: Any,
        kind: str,
        rate: float | None = None,
        seed: int | None = None,
        per_class: bool | None = None,
        matrix: Any = None,
        file: str | None = None,
        key: str | None = None,
        clean_key: str | None = None,
        num_classes: int | None = None,
        on_test: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.noise = LabelNoise(kind, rate, seed, per_class, matrix, file, key, clean_key)
        if num_classes is not None and (type(num_classes) is not int or num_classes < 1):
            raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")
        self.num_classes = num_classes
        check_flag("on_test", on_test)
        check_flag("lazy_init", lazy_init)
        super().__init__(dataset, lazy_init=True)
        self._refuse(on_test)
        if not lazy_init:
            self.full_init()

    def _refuse(self, on_test: bool) -> None:
        for layer in self._layers():
            if isinstance(layer, NoisyLabelDataset):
                raise ValueError("the data set has noisy labels already; noise it once")
            split = str(getattr(layer, "split", ""))
            held_out = split.lower().startswith(("test", "val"))
            if (held_out or layer.test_mode) and not on_test:
                what = f"split {split!r}" if held_out else "test_mode=True"
                raise ValueError(
                    f"{what}: these data are for testing, whose labels stay clean; noise the "
                    "training data, or say on_test=True"
                )

    def _prepare(self) -> None:
        num_classes = self.num_classes or len(self.dataset.metainfo.get("classes") or ())
        if not num_classes:
            raise ValueError("the data set names no classes; say num_classes=K")
        self._clean = gather(self.dataset).labels
        self._noisy = self.noise.apply(self._clean, num_classes)
        self._description = self.noise.describe(self._clean, self._noisy)

    @property
    def metainfo(self) -> dict:
        """The wrapped data set's, and ``label_noise`` once the labels are read."""
        metainfo = super().metainfo
        if self._fully_initialized:
            metainfo["label_noise"] = dict(self._description)
        return metainfo

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return what is known of a sample before the pipeline.

        Args:
            idx: Of this data set.

        Returns:
            The wrapped data set's, with the noisy ``gt_label`` and the ``clean_label``.
        """
        info = super().get_data_info(idx)
        return dict(info, gt_label=int(self._noisy[idx]), clean_label=int(self._clean[idx]))

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the noisy labels (N,)."""
        return self._noisy.copy()

    @force_full_init
    def get_clean_labels(self) -> np.ndarray:
        """Return the clean labels (N,)."""
        return self._clean.copy()

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the noisy label of a sample.

        Args:
            idx: Of this data set.
        """
        return [int(self._noisy[idx])]

    def _fetch(self, keys: _Keys) -> dict:
        batch = super()._fetch(keys)
        noisy, clean = (torch.from_numpy(each[keys.idx]) for each in (self._noisy, self._clean))
        samples = replace(batch["data_samples"], gt_label=noisy, clean_label=clean)
        return dict(batch, data_samples=samples)

    def _sample_table(self) -> _SampleTable:
        return gather(self.dataset)._replace(labels=self._noisy, clean=self._clean)

"""Normalisation of whole batches."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor
from torch.nn import functional

from mmkd_logit.datasets.in_memory import SampleBatch
from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_count, check_flag


@MODELS.register_module()
class BatchPreprocessor(ClsDataPreprocessor):
    """mmpretrain's ``ClsDataPreprocessor``, without a Python object for each sample.

    What it makes of the images is the same bit for bit. A batch of :class:`InMemoryDataset` goes
    to training with its :class:`SampleBatch`, and to evaluation with a list of ``DataSample``. To
    give scores instead of labels, as MixUp and CutMix (``batch_augments``) and ``to_onehot`` ask,
    the list is made for training too; the number of a picture is lost then, as it should be.
    Batches of other data sets are treated as the parent treats them, but for their copy to a GPU:
    from pinned memory, as ``pin_memory=True`` of a data loader makes it, the host does not wait.

    Args:
        channels_last: Give images in ``torch.channels_last``.
        **kwargs: Of ``ClsDataPreprocessor``.

    Raises:
        ValueError: If an argument is of another kind, or ``std`` not above 0.

    Example:
        >>> from mmkd_logit.models import BatchPreprocessor
        >>> to_model = BatchPreprocessor(mean=[127.5], std=[127.5])
        >>> to_model(dict(inputs=torch.tensor([[[[0, 255]]]], dtype=torch.uint8)))['inputs']
        tensor([[[[-1.,  1.]]]])
    """

    def __init__(self, channels_last: bool = False, **kwargs: Any) -> None:
        check_flag("channels_last", channels_last)
        check_settings(kwargs)
        super().__init__(**kwargs)
        self._non_blocking = True  # which mmpretrain's preprocessor does not let a config say
        self.channels_last = channels_last

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make the network's input of a batch, as the class says."""
        samples = data.get("data_samples")
        if isinstance(samples, SampleBatch) and not self.to_onehot:
            samples = samples.to(self.device, non_blocking=True)
            inputs = self._normalise(data["inputs"])
            return dict(inputs=inputs, data_samples=samples if training else samples.as_list())
        if isinstance(samples, SampleBatch):
            data = dict(data, data_samples=samples.as_list())
        done = super().forward(data, training)
        if self.channels_last:
            done["inputs"] = done["inputs"].contiguous(memory_format=self._layout)
        return done

    def _normalise(self, images: Tensor) -> Tensor:
        """Do what the parent does; where it copies, do it in place."""
        images = images.to(self.device, non_blocking=True)
        if self.to_rgb and images.shape[1] == 3:
            images = images.flip(1)
        images = images.to(torch.float32, copy=True)
        if self._enable_normalize:
            images = images.sub_(self.mean).div_(self.std)
        height, width = ((-length) % self.pad_size_divisor for length in images.shape[-2:])
        if height or width:
            images = functional.pad(images, (0, width, 0, height), "constant", self.pad_value)
        return images.contiguous(memory_format=self._layout)  # at the end, where it costs least


def check_settings(settings: dict[str, Any]) -> None:
    """Check what mmpretrain's preprocessor takes as it comes."""
    mean: Any = settings.get("mean")
    std: Any = settings.get("std")
    if mean is not None or std is not None:
        if not (_are_numbers(mean) and _are_numbers(std) and len(mean) == len(std)):
            raise ValueError(
                "mean and std must be lists of one number a channel, both or neither, got "
                f"mean={mean!r} and std={std!r}"
            )
        if min(std) <= 0:
            raise ValueError(f"std must be above 0, as images are divided by it, got {std!r}")
    check_flag("to_rgb", settings.get("to_rgb", False))
    check_flag("to_onehot", settings.get("to_onehot", False))
    check_count("pad_size_divisor", settings.get("pad_size_divisor", 1))
    if settings.get("num_classes") is not None:
        check_count("num_classes", settings["num_classes"])
    elif settings.get("to_onehot"):
        raise ValueError("to_onehot=True needs num_classes")
    if not _are_numbers([settings.get("pad_value", 0)]):
        raise ValueError(f"pad_value must be a finite number, got {settings['pad_value']!r}")
    augments = settings.get("batch_augments")
    if augments is not None and not isinstance(augments, dict):
        raise ValueError(
            "batch_augments must be None or a dict such as "
            f"dict(augments=dict(type='Mixup', alpha=0.8)), got {augments!r}"
        )


def _are_numbers(values: Any) -> bool:
    """Return whether this is a list of finite numbers."""
    return (
        isinstance(values, Sequence)
        and len(values) > 0
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )

"""One sample of a loader, shown to a network before training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_logit._arguments import first_line

_MOST = 100_000  # samples whose labels are read one by one; of more the names of classes must do


def batch_of_one(loader: Any, what: str) -> Any:
    """Return a batch of one sample of a loader, whose workers and sampler are left alone.

    Images in memory are not moved: a black one of their size stands for them.

    Args:
        loader: Of a Runner.
        what: Which data, for messages.

    Raises:
        ValueError: If the loader gives no batches, or the sample cannot be read.
    """
    from mmkd_logit.datasets import SampleKey
    from mmkd_logit.datasets._sample_wrapper import _SampleWrapper

    dataset = loader.dataset
    _refuse_empty(loader, what)
    if isinstance(dataset, _SampleWrapper) and dataset.in_memory:
        return dict(inputs=torch.zeros((1, *dataset.picture_shape), dtype=torch.uint8))
    key: Any = SampleKey(0, 0, 0) if getattr(dataset, "seeded", False) else 0
    try:
        return loader.collate_fn([dataset[key]])
    except Exception as error:  # of files, transforms or the data set, whatever it is
        raise ValueError(
            f"the first sample of the {what} data cannot be read ({first_line(error)}); check "
            "data_root, the files and the transforms"
        ) from error


def _refuse_empty(loader: Any, what: str) -> None:
    try:
        batches = len(loader)
    except TypeError:  # of an endless stream
        return
    if not batches:
        raise ValueError(
            f"the {what} loader gives no batch: {len(loader.dataset)} samples with "
            f"batch_size={loader.batch_size} and drop_last={loader.drop_last}; lower batch_size, "
            "or set drop_last=False"
        )


def label_range(dataset: Any) -> tuple[int, int] | None:
    """Return the smallest and the largest label of a data set, or None where nobody knows.

    Args:
        dataset: Any; of many samples that are not in memory the names of the classes are counted.
    """
    try:
        if getattr(dataset, "in_memory", False) or len(dataset) <= _MOST:
            labels = torch.as_tensor(dataset.get_gt_labels())
            if labels.ndim == 1 and len(labels) and not labels.is_floating_point():
                return int(labels.min()), int(labels.max())
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        pass  # several labels a sample, or none: not ours to judge
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    return (0, len(classes) - 1) if classes else None


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network predict without leaving a trace in it, or in the random generators.

    Args:
        network: Any.
    """
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models._random_state import preserve_random_state

    modes = [(module, module.training) for module in network.modules()]
    own = network.training
    try:
        with torch.no_grad(), preserve_random_state():
            network.eval()
            yield
    finally:
        network.train(own)
        for module, mode in modes:
            module.training = mode


def shape_of(inputs: Any) -> str:
    """Describe images for a message.

    Args:
        inputs: A tensor (N, C, H, W), or a list of images.
    """
    first = inputs[0] if len(inputs) else inputs
    return str(tuple(first.shape)) if isinstance(first, Tensor) else type(first).__name__

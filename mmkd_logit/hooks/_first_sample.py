"""One sample of a loader, shown to a network before training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmkd_logit._arguments import first_line

_MOST = 100_000  # samples whose labels are read one by one
_IGNORED = -100  # as a label, by torch's cross entropy
_KNOWN = {"torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "mmkd_logit", "timm"}
_KNOWN |= {"transformers"}


def from_known_place(thing: Any) -> bool:
    """Whether a function or the class of an object is of a library whose ways are known here.

    Args:
        thing: Any; None is known.
    """
    if thing is None:
        return True
    thing = getattr(thing, "func", thing)  # a functools.partial
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0] in _KNOWN


def is_known(loader: Any) -> bool:
    """Whether one sample of a loader can be had without its sampler.

    Args:
        loader: Of a Runner.
    """
    parts = (loader.sampler, loader.batch_sampler, loader.collate_fn)
    stream = isinstance(loader.dataset, IterableDataset)
    return not stream and all(map(from_known_place, parts))


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

    Labels of -100, which mmpretrain's losses leave out, do not count.

    Args:
        dataset: Any; of very many samples that are not in memory some are looked at.
    """
    from mmkd_logit.datasets._sample_wrapper import _SampleWrapper

    try:
        if isinstance(dataset, _SampleWrapper):  # which have them at hand
            labels = torch.as_tensor(dataset.get_gt_labels())
        else:
            places = range(0, len(dataset), 1 + len(dataset) // _MOST)
            labels = torch.as_tensor([dataset.get_data_info(i)["gt_label"] for i in places])
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        return None  # several labels a sample, or none: not ours to judge
    if labels.ndim != 1 or labels.is_floating_point():
        return None
    labels = labels[labels != _IGNORED]
    return (int(labels.min()), int(labels.max())) if len(labels) else None


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

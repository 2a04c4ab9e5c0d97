"""Batches that arrive as batches."""

from typing import Any

from mmengine.dataset import default_collate

from mmkd_logit.registry import FUNCTIONS


@FUNCTIONS.register_module()
def batch_collate(data: Any) -> Any:
    """Pass a batch that the data set made as a whole; join single samples.

    Args:
        data: Of :class:`InMemoryDataset`, the batch as a dict; of any other data set the list of
            samples, which MMEngine's ``default_collate`` joins.

    Raises:
        ValueError: If it is neither, or no sample.

    Example:
        >>> batch_collate(dict(inputs=1)), batch_collate([dict(inputs=1), dict(inputs=2)])
        ({'inputs': 1}, {'inputs': tensor([1, 2])})
    """
    if isinstance(data, dict):
        return data
    if not isinstance(data, (list, tuple)) or not data or data[0] is None:
        raise ValueError(
            "batch_collate joins a list of samples, or passes a batch that is a dict, got "
            f"{data!r}; does the pipeline end in PackInputs?"
        )
    return default_collate(data)

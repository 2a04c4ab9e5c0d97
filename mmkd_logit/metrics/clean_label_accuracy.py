"""Accuracy where labels are noisy."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.evaluation import Accuracy

from mmkd_logit.registry import METRICS


@METRICS.register_module()
class CleanLabelAccuracy(Accuracy):
    """mmpretrain's ``Accuracy`` against the clean labels, in percent.

    The labels are the ``clean_label`` that :class:`NoisyLabelDataset` leaves in each sample;
    a sample without one counts with its ``gt_label``. Beside ``Accuracy``, which measures against
    the labels that training sees, it says how much of the noise was learned. The results are
    called ``accuracy/clean_top1`` and so on.

    Args:
        **kwargs: Of ``Accuracy``, such as ``topk``.

    Example:
        >>> from mmpretrain.structures import DataSample
        >>> sample = DataSample().set_gt_label(1).set_pred_score(torch.tensor([0.9, 0.1]))
        >>> sample.set_field(0, 'clean_label', field_type='metainfo')
        >>> metric = CleanLabelAccuracy()
        >>> metric.process(None, [sample.to_dict()])
        >>> metric.evaluate(1)
        {'accuracy/clean_top1': 100.0}
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep predictions and clean labels of a batch.

        Args:
            data_batch: Not used.
            data_samples: What the model gave.
        """
        super().process(data_batch, [_with_clean_label(sample) for sample in data_samples])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the accuracies.

        Args:
            results: Of all processes.
        """
        return {f"clean_{key}": value for key, value in super().compute_metrics(results).items()}


def _with_clean_label(sample: dict) -> dict:
    if "clean_label" not in sample:
        return sample
    return dict(sample, gt_label=torch.as_tensor(sample["clean_label"]).reshape(1))

"""Accuracy where labels are noisy."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.evaluation import Accuracy

from mmkd_logit._checks import check_count, check_number
from mmkd_logit.registry import METRICS

from ._collecting import check_collecting


@METRICS.register_module()
class CleanLabelAccuracy(Accuracy):
    """mmpretrain's ``Accuracy`` against the clean labels, in percent.

    The labels are the ``clean_label`` that :class:`NoisyLabelDataset` leaves in each sample;
    a sample without one counts with its ``gt_label``. Beside ``Accuracy``, which measures against
    the labels that training sees, it says how much of the noise was learned. The results are
    called ``accuracy/clean_top1`` and so on.

    Args:
        **kwargs: Of ``Accuracy``, such as ``topk``.

    Raises:
        ValueError: If an argument is of another kind, or a sample has no prediction or no label
            among the classes.

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
        _check_settings(**kwargs)
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
    given = sample.get("clean_label")
    given = sample.get("gt_label") if given is None else given
    label = torch.as_tensor([] if given is None else given).reshape(-1)
    score = sample.get("pred_score")
    if score is None and sample.get("pred_label") is None:
        raise ValueError("CleanLabelAccuracy needs pred_score or pred_label; the head gives none")
    if score is not None and not torch.isfinite(score).all():
        raise ValueError(
            f"CleanLabelAccuracy: pred_score of sample {sample.get('sample_idx', '?')} is not "
            "finite; the network has diverged or its input is broken"
        )
    classes = None if score is None else score.shape[-1]
    whole = label.numel() == 1 and not label.is_floating_point()
    if not whole or not 0 <= int(label) < (classes or int(label) + 1):
        raise ValueError(
            "CleanLabelAccuracy needs one label a sample, an integer"
            + (f" from 0 to {classes - 1}" if classes else "")
            + f", got {label.tolist()}"
        )
    return dict(sample, gt_label=label)


def _check_settings(
    topk: Any = (1,),
    thrs: Any = 0.0,
    collect_device: Any = "cpu",
    prefix: Any = None,
) -> None:
    """Check what the parent takes as it comes."""
    for k in topk if isinstance(topk, (list, tuple)) and topk else [topk]:
        check_count("topk", k)
    for threshold in thrs if isinstance(thrs, (list, tuple)) and thrs else [thrs]:
        if threshold is not None:
            check_number("thrs", threshold)
    check_collecting(collect_device, prefix, None)

"""Whether noisy labels were learned by heart."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkd_logit.registry import METRICS

from ._logit_metric import LogitMetric
from ._stack import labels_of, logits_of, predicted_classes


@METRICS.register_module()
class NoisyLabelAccuracy(LogitMetric):
    r"""Accuracy on noisy labels and on the clean ones behind them, in percent.

    Each sample i has a ``gt_label`` :math:`y_i`, which may be wrong, and the true
    ``clean_label`` :math:`c_i` that :class:`NoisyLabelDataset` leaves in it. With the predicted
    class :math:`\hat y_i`, that of the largest logit (the first one of equals), and the wrongly
    labelled samples :math:`W = \{ i : y_i \ne c_i \}`:

    .. math::
        \mathrm{top1} = \frac{100}{n} \sum_i [\hat y_i = y_i], \quad
        \mathrm{clean\_top1} = \frac{100}{n} \sum_i [\hat y_i = c_i], \quad
        \mathrm{memorized} = \frac{100}{|W|} \sum_{i \in W} [\hat y_i = y_i], \quad
        \mathrm{recovered} = \frac{100}{|W|} \sum_{i \in W} [\hat y_i = c_i]

    The last two are the memorized and the correct fraction of the falsely labelled samples that
    Liu et al. follow ("Early-Learning Regularization Prevents Memorization of Noisy Labels",
    NeurIPS 2020, figure 1); what is missing to 100 was predicted as a third class. On samples that
    the network was trained on they say how much of the noise it learned.

    The keys are ``noisy/top1``, ``noisy/clean_top1``, ``noisy/wrong_memorized`` and
    ``noisy/wrong_recovered``. The last two are left out where no label is wrong, and all where no
    sample has a ``clean_label``; beside others that have one, a sample without counts as labelled
    right.

    Args:
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If samples have no ``logits``, or such that are not finite, or labels that are
            no class, or there are none.

    Example:
        >>> from mmkd_logit.metrics import NoisyLabelAccuracy
        >>> metric = NoisyLabelAccuracy()
        >>> sample = dict(logits=torch.tensor([3., 1., 2.]), clean_label=0)
        >>> metric.process(None, [dict(sample, gt_label=torch.tensor([y])) for y in (0, 2)])
        >>> metric.evaluate(2)  # doctest: +NORMALIZE_WHITESPACE
        {'noisy/top1': 50.0, 'noisy/clean_top1': 100.0,
         'noisy/wrong_memorized': 0.0, 'noisy/wrong_recovered': 100.0}
    """

    default_prefix = "noisy"

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Keep prediction and labels of each sample.

        Args:
            samples: N dicts with ``logits`` (K,), ``gt_label`` and perhaps ``clean_label``.
        """
        logits = logits_of(samples, "student", self.name)
        assert logits is not None
        return dict(
            predicted=predicted_classes(logits),
            label=labels_of(samples, "gt_label", logits.shape[1], self.name),
            clean=labels_of(samples, "clean_label", logits.shape[1], self.name),
            # A batch may have no noise beside others that have.
            known=torch.tensor([sample.get("clean_label") is not None for sample in samples]),
        )

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the accuracies.

        Args:
            columns: Of all samples.
        """
        if not columns["known"].any():
            return {}
        noisy = columns["predicted"] == columns["label"]
        clean = columns["predicted"] == columns["clean"]
        wrong = columns["label"] != columns["clean"]
        metrics = dict(top1=100 * noisy.mean(), clean_top1=100 * clean.mean())
        if wrong.any():
            metrics["wrong_memorized"] = 100 * noisy[wrong].mean()
            metrics["wrong_recovered"] = 100 * clean[wrong].mean()
        return metrics

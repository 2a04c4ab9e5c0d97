"""Accuracy by class, and against clean and noisy labels."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmpretrain.evaluation import Accuracy
from torch import Tensor

from mmkd_logit.registry import METRICS
from mmkd_logit.utils.arguments import check_count, check_number
from mmkd_logit.utils.files import write_text

from .base import LogitMetric, check_collecting, predicted_classes


@METRICS.register_module()
class PerClassAccuracy(LogitMetric):
    r"""Accuracy of each class in percent: mean, standard deviation and minimum over the classes.

    .. math::
        a_c = \frac{100}{n_c} \sum_{i : y_i = c} [\arg\max_k u_{ik} = c]

    for the logits :math:`u_i` and the ``gt_label`` :math:`y_i` of sample i and each class c with
    :math:`n_c > 0` samples; other classes do not count. This is the recall of c. The mean over
    classes is the balanced accuracy and equals the accuracy where all have as many samples; the
    standard deviation is that of the classes there are (divided by their number). Of equal largest
    logits the first class is predicted.

    The keys are ``class_accuracy/mean``, ``class_accuracy/std`` and ``class_accuracy/min``.

    Args:
        out_file: A JSON file for the whole vector, written anew by the main process at each
            evaluation: ``accuracy`` and ``samples``, one item a class, in the order of the logits
            (null for the accuracy of a class without samples), and ``classes``, their names, where
            the data set has names. No file if None.
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``out_file`` does not end with ``.json``; for samples as in
            :class:`LogitMetric`.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import PerClassAccuracy
        >>> metric = PerClassAccuracy()
        >>> u = torch.tensor([2., 1., 0.])
        >>> metric.process(None, [dict(logits=u, gt_label=torch.tensor([y])) for y in (0, 0, 1)])
        >>> metric.evaluate(3)
        {'class_accuracy/mean': 50.0, 'class_accuracy/std': 50.0, 'class_accuracy/min': 0.0}
    """

    default_prefix = "class_accuracy"

    def __init__(self, out_file: str | os.PathLike | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        named = isinstance(out_file, (str, os.PathLike))
        if out_file is not None and not (named and str(out_file).endswith(".json")):
            raise ValueError(f"out_file must end with .json, got {str(out_file)!r}")
        self.out_file = out_file
        self._num_classes = 0

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Keep the label of each sample and whether it is predicted."""
        logits = self.logits_of(samples)
        assert logits is not None
        self._num_classes = logits.shape[1]
        labels = self.labels_of(samples, logits.shape[1])
        return dict(label=labels, right=predicted_classes(logits) == labels)

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the statistics and write the file."""
        labels = columns["label"].astype(np.int64)
        samples = np.bincount(labels, minlength=self._num_classes)
        right = np.bincount(labels, columns["right"], minlength=self._num_classes)
        if self.out_file is not None:
            self._write(samples, right)
        occurs = samples > 0
        accuracy = 100 * right[occurs] / samples[occurs]
        return dict(mean=accuracy.mean(), std=accuracy.std(), min=accuracy.min())

    def _write(self, samples: np.ndarray, right: np.ndarray) -> None:
        pairs = zip(right.tolist(), samples.tolist(), strict=True)
        content = dict(
            accuracy=[100 * hits / count if count else None for hits, count in pairs],
            samples=samples.tolist(),
        )
        classes = (self.dataset_meta or {}).get("classes")
        if classes is not None:
            content["classes"] = [str(name) for name in classes]
        write_text(Path(self.out_file or "").expanduser(), json.dumps(content) + "\n")


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
        for name, check in (("topk", check_count), ("thrs", check_number)):
            given = kwargs.get(name)
            for value in given if given and isinstance(given, (list, tuple)) else [given]:
                if value is not None:
                    check(name, value)
        check_collecting(kwargs.get("collect_device", "cpu"), kwargs.get("prefix"), None)
        super().__init__(**kwargs)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep predictions and clean labels of a batch."""
        super().process(data_batch, [_with_clean_label(sample) for sample in data_samples])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the accuracies under their names."""
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
    num_classes = torch.inf if score is None else len(score)
    whole = label.numel() == 1 and not label.is_floating_point()
    if not whole or not 0 <= int(label) < num_classes:
        raise ValueError(
            "CleanLabelAccuracy needs one label a sample, an integer from 0 to below "
            f"{num_classes}, got {label.tolist()}"
        )
    return dict(sample, gt_label=label)


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
        ValueError: For samples as in :class:`LogitMetric`.

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
        """Keep prediction and labels of each sample."""
        logits = self.logits_of(samples)
        assert logits is not None
        return dict(
            predicted=predicted_classes(logits),
            label=self.labels_of(samples, logits.shape[1]),
            clean=self.labels_of(samples, logits.shape[1], "clean_label"),
            # A batch may have no noise beside others that have.
            known=torch.tensor([sample.get("clean_label") is not None for sample in samples]),
        )

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the accuracies."""
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

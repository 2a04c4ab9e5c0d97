"""How the accuracy differs between the classes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmkd_logit._atomic_files import write_text
from mmkd_logit.registry import METRICS

from ._logit_metric import LogitMetric
from ._stack import labels_of, logits_of, predicted_classes


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
        ValueError: If ``out_file`` does not end with ``.json``; if samples have no ``logits``, or
            such that are not finite, or no single label among the classes, or there are none.

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
        """Keep the label of each sample and whether it is predicted.

        Args:
            samples: N dicts with ``logits`` (K,) and ``gt_label``.
        """
        logits = logits_of(samples, "student", self.name)
        assert logits is not None
        self._num_classes = logits.shape[1]
        labels = labels_of(samples, "gt_label", logits.shape[1], self.name)
        return dict(label=labels, right=predicted_classes(logits) == labels)

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the statistics and write the file.

        Args:
            columns: Of all samples.
        """
        labels = columns["label"].astype(np.int64)
        samples = np.bincount(labels, minlength=self._num_classes)
        right = np.bincount(labels, columns["right"], minlength=self._num_classes)
        occurs = samples > 0
        accuracy = 100 * right[occurs] / samples[occurs]
        if self.out_file is not None:
            self._write(occurs, accuracy, samples)
        return dict(mean=accuracy.mean(), std=accuracy.std(), min=accuracy.min())

    def _write(self, occurs: np.ndarray, accuracy: np.ndarray, samples: np.ndarray) -> None:
        values = iter(accuracy.tolist())
        content = dict(
            accuracy=[next(values) if there else None for there in occurs],
            samples=samples.tolist(),
        )
        classes = (self.dataset_meta or {}).get("classes")
        if classes is not None:
            content["classes"] = [str(name) for name in classes]
        write_text(Path(self.out_file or "").expanduser(), json.dumps(content) + "\n")

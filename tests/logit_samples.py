"""Samples with logits, as metrics see them."""

from types import SimpleNamespace

import numpy as np
import torch


def logit_case(seed=0, n=200, num_classes=10, integers=False):
    """Arrays of a student and a teacher that are alike and right in half of the samples.

    Whole numbers as logits have many ties.
    """
    generator = np.random.default_rng(seed)
    teacher = generator.normal(size=(n, num_classes)) * 3
    logits = teacher + generator.normal(size=(n, num_classes)) * 2
    if integers:
        teacher, logits = teacher.round() // 2, logits.round() // 2
    clean = np.where(
        generator.random(n) < 0.5, teacher.argmax(1), generator.integers(num_classes, size=n)
    )
    labels = np.where(generator.random(n) < 0.6, clean, generator.integers(num_classes, size=n))
    return SimpleNamespace(
        logits=logits.astype(np.float32),
        teacher_logits=teacher.astype(np.float32),
        prelogits=generator.exponential(size=(n, 16)).astype(np.float32),
        gt_label=labels,
        clean_label=clean,
    )


def softmax(logits):
    exp = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def samples_of(case, *left_out):
    """Dicts as of ``DataSample.to_dict()``, without the fields that are named."""
    scores = torch.from_numpy(softmax(case.logits))
    made = []
    for row in range(len(case.logits)):
        sample = {
            name: torch.from_numpy(getattr(case, name)[row])
            for name in ("logits", "teacher_logits", "prelogits")
        }
        sample.update(
            pred_score=scores[row],
            gt_label=torch.tensor([case.gt_label[row]]),
            clean_label=int(case.clean_label[row]),
            sample_idx=1000 + row,
        )
        made.append({name: value for name, value in sample.items() if name not in left_out})
    return made


def evaluate(metric, samples, batch_size=64):
    """The metrics of samples that come in batches."""
    for begin in range(0, len(samples), batch_size):
        metric.process(None, samples[begin : begin + batch_size])
    return metric.evaluate(len(samples))

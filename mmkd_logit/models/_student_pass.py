"""One forward pass of a student, for its logits and for its own loss."""

from typing import Any

from mmpretrain.models import ClsHead, ImageClassifier
from torch import Tensor, nn

from mmkd_logit.datasets.sample_batch import SampleBatch


class _WholeBatch:
    """Stands where a head looks for samples: one, whose label is those of the batch."""

    def __init__(self, gt_label: Tensor) -> None:
        self.gt_label = gt_label

    def __contains__(self, key: str) -> bool:
        return key == "gt_label"


def samples_for_loss(student: nn.Module, data_samples: Any) -> Any:
    """Return what stands for the samples in the student's own loss.

    Args:
        student: The student's network.
        data_samples: A list, or a :class:`~mmkd_logit.datasets.sample_batch.SampleBatch`; of the
            latter its label tensor alone is used where the head asks for no more.
    """
    if isinstance(data_samples, SampleBatch) and _needs_labels_alone(student):
        labels = data_samples.labels
        if labels is not None:
            return [_WholeBatch(labels)]
    return data_samples


def losses_and_output(
    student: nn.Module, head: nn.Module, inputs: Tensor, data_samples: Any
) -> tuple[dict[str, Tensor], Any]:
    """Return the student's own losses, and what its head gave in the same pass.

    Args:
        student: The student's network.
        head: The child whose output is the logits.
        inputs: Images, (N, C, H, W).
        data_samples: Their N annotations.
    """
    data_samples = samples_for_loss(student, data_samples)
    if _needs_labels_alone(student):
        plain: Any = student
        logits = plain.head(plain.extract_feat(inputs))
        return plain.head._get_loss(logits, data_samples), logits
    outputs: list[Any] = []
    handle = head.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        losses = student.loss(inputs, data_samples)
    finally:
        handle.remove()
    return losses, outputs[-1] if outputs else None


def _needs_labels_alone(student: nn.Module) -> bool:
    """Whether the loss is the usual classifier's and head's, of logits and labels."""
    head = getattr(student, "head", None)
    return (
        isinstance(student, ImageClassifier)
        and type(student).loss is ImageClassifier.loss
        and isinstance(head, ClsHead)
        and type(head).loss is ClsHead.loss
        and type(head)._get_loss is ClsHead._get_loss
    )

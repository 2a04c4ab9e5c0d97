"""Logits beside predictions, which metrics read."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_flag

from .networks import LogitObserver, logits_of, trained_networks

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class BatchMemory:
    """Keeps tensors by the batches that they were computed of.

    A batch is known by a hash of its bits, computed where it lies, so that 8 bytes an image come
    to the host. The multipliers are random 64-bit integers: two batches that differ have the same
    hash with a chance of about 2**-63 for each image.
    """

    def __init__(self) -> None:
        self.keep = True  # what is computed
        self._kept: dict[tuple, Tensor] = {}
        self._factors = torch.empty(0, dtype=torch.int64)

    def __call__(self, key: tuple, inputs: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Look up, or compute."""
        if not self.keep and not self._kept:
            return compute()
        known = (key, tuple(inputs.shape), str(inputs.dtype), self._hash(inputs))
        found = self._kept.get(known)
        if found is None:
            found = compute()
            if self.keep:
                self._kept[known] = found
        return found

    def _hash(self, inputs: Tensor) -> bytes:
        words = inputs.detach().contiguous().view(_WORDS[inputs.element_size()])
        words = words.reshape(len(inputs), -1)
        if self._factors.numel() != words.shape[1] or self._factors.device != words.device:
            generator = torch.Generator().manual_seed(words.shape[1])
            factors = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator)
            self._factors = (2 * factors + 1).to(words.device)
        return (words * self._factors).sum(1).cpu().numpy().tobytes()


@HOOKS.register_module()
class LogitOutputsHook(Hook):
    """Add to each prediction, while validating and testing, the logits that it came from.

    Every predicted ``DataSample`` gets ``logits`` (K,) and ``prelogits`` (D,), the input of the
    last linear layer; where the model is a :class:`LogitDistiller`, also ``teacher_logits`` (K,),
    of the ensemble if there are several teachers. All are float32 tensors on the CPU. The metrics
    of ``mmkd_logit`` read them. Predictions of a model without one tensor of logits or without a
    linear layer get none of these fields, nor do those that test-time augmentation joins. Scores
    and labels on a GPU come to the CPU as well, in one copy for a batch. Each student of a
    :class:`StudentGroup` is treated alike.

    The teacher sees the images of the student once: during training its logits for a batch of
    validation images are kept (4 K bytes an image) and found by a hash of the images, so that
    augmented ones are never confused. Its cache of training views is neither read nor filled.
    With ``alpha=0`` no teacher runs here either.

    Args:
        teacher: Whether the teacher's logits are added; False saves its passes.
        prelogits: ``'student'``, or ``'all'`` to add ``teacher_prelogits`` of one teacher, which
            are not kept.

    Raises:
        ValueError: If ``prelogits`` is neither, or ``teacher`` neither True nor False.
    """

    changes_training = False

    def __init__(self, teacher: bool = True, prelogits: str = "student") -> None:
        if prelogits not in ("student", "all"):
            raise ValueError(f"prelogits must be 'student' or 'all', got {prelogits!r}")
        self.teacher = check_flag("teacher", teacher)
        self.prelogits = prelogits
        self._memory = BatchMemory()
        self._handles: list[Any] = []

    def before_val(self, runner: Runner) -> None:
        """Observe from now on, and keep the teachers' logits."""
        self._begin(runner, keep=True)

    def before_test(self, runner: Runner) -> None:
        """Observe from now on."""
        self._begin(runner, keep=False)

    def after_val(self, runner: Runner) -> None:
        """Remove the observers."""
        self._end()

    def after_test(self, runner: Runner) -> None:
        """Remove the observers."""
        self._end()

    def _begin(self, runner: Runner, keep: bool) -> None:
        self._end()  # of a validation that was broken off
        self._memory.keep = keep
        for network in trained_networks(runner).values():
            if logits_of(network) is not None:
                observer = LogitObserver(network, training=False)
                adding = network.register_forward_hook(self._adding(observer), with_kwargs=True)
                self._handles += [observer, adding]

    def _end(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _adding(self, observer: LogitObserver) -> Callable:
        """Return a hook that adds the fields to a network's predictions."""

        def add(network: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            seen = observer.take()
            inputs = args[0] if args else kwargs.get("inputs")
            if not isinstance(output, list) or not isinstance(inputs, Tensor):
                return
            fields = {k: _plain(v) for k, v in seen.items() if len(v) == len(output)}
            if "logits" not in fields:
                return
            fields.update(self._ask_teacher(network, inputs))
            for name in ("pred_score", "pred_label", "gt_label"):
                # In one copy: metrics would wait for the device at each sample.
                values = [sample.get(name) for sample in output]
                on_device = all(isinstance(v, Tensor) and not v.is_cpu for v in values)
                if on_device and len({v.shape for v in values}) == 1:
                    fields[name] = torch.stack(values).cpu()
            for name, values in fields.items():
                for sample, value in zip(output, values.unbind(), strict=True):
                    sample.set_field(value, name)

        return add

    @torch.no_grad()
    def _ask_teacher(self, network: Any, inputs: Tensor) -> dict[str, Tensor]:
        """Return the fields of the teacher for images as the network gets them."""
        teachers = getattr(network, "teachers", None)
        if not self.teacher or not teachers or not network.needs_teacher:
            return {}
        if self.prelogits == "student" or len(teachers) > 1:
            # By reference, so that teachers of earlier stages are let go.
            key = (*map(weakref.ref, teachers), network.ensemble)
            logits = self._memory(key, inputs, lambda: _plain(network.reference_logits(inputs)))
            return dict(teacher_logits=logits)
        observer = LogitObserver(teachers[0].model, training=False)
        fields = dict(teacher_logits=_plain(network.reference_logits(inputs)))
        observer.remove()
        prelogits = observer.take().get("prelogits")  # of all micro-batches
        if prelogits is not None and len(prelogits) == len(inputs):
            fields["teacher_prelogits"] = _plain(prelogits)
        return fields


def _plain(values: Tensor) -> Tensor:
    return values.detach().float().cpu()

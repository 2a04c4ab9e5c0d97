"""What metrics take of the logits."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_flag

from .networks import last_linear, logits_of, trained_networks

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class BatchMemory:
    """Keeps tensors by the batches that they were computed of.

    A batch is known by a hash of its bits that is computed where it lies, so that only 8 bytes an
    image come to the host. The multipliers are random 64-bit integers: batches that differ are
    taken for each other with a chance of about 2**-63 for each image.

    Attributes:
        keep: Whether what is computed is kept.
    """

    def __init__(self) -> None:
        self.keep = True
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

    def forget(self) -> None:
        """Let go of everything."""
        self._kept.clear()

    def _hash(self, inputs: Tensor) -> bytes:
        words = inputs.detach().contiguous().view(_WORDS[inputs.element_size()])
        words = words.reshape(len(inputs), -1)
        if self._factors.numel() != words.shape[1] or self._factors.device != words.device:
            generator = torch.Generator().manual_seed(words.shape[1])
            factors = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator)
            self._factors = (2 * factors + 1).to(words.device)
        return (words * self._factors).sum(1).cpu().numpy().tobytes()


# Logits beside predictions, for metrics to look at.


@HOOKS.register_module()
class LogitOutputsHook(Hook):
    """Add to each prediction, while validating and testing, the logits that it came from.

    Every predicted ``DataSample`` gets ``logits`` (K,) and ``prelogits`` (D,), the input of the
    last linear layer; where the model is a :class:`LogitDistiller`, also ``teacher_logits`` (K,),
    of the ensemble if there are several teachers. All are float32 tensors on the CPU. The metrics
    of ``mmkd_logit`` read them. A model that is no classifier with one tensor of logits, or has no
    linear layer, lacks these fields, and so does test-time augmentation, which joins predictions.
    Each student of a :class:`StudentGroup` is treated alike.

    The teacher sees the very images that the student sees, once: while training goes on, what it
    said of a batch of validation images is kept (4 K bytes an image) and looked up by a hash of
    the images, so that augmented ones are never confused. Its cache of training pictures is
    neither read nor filled. With ``alpha=0`` no teacher runs here either.

    Args:
        teacher: Whether the teacher is asked; False saves its passes.
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
        self._watches: list[_Watch] = []

    def before_val(self, runner: Runner) -> None:
        """Look at what passes from now on, and keep what teachers say."""
        self._begin(runner, keep=True)

    def before_test(self, runner: Runner) -> None:
        """Look at what passes from now on."""
        self._begin(runner, keep=False)

    def after_val(self, runner: Runner) -> None:
        """Look no longer."""
        self._end()

    def after_test(self, runner: Runner) -> None:
        """Look no longer."""
        self._end()

    def _begin(self, runner: Runner, keep: bool) -> None:
        self._end()  # of a validation that was broken off
        self._memory.keep = keep
        self._watches = [
            _Watch(network, self)
            for network in trained_networks(runner).values()
            if logits_of(network) is not None
        ]

    def _end(self) -> None:
        for watch in self._watches:
            watch.remove()
        self._watches = []

    def fields_of_teacher(self, network: Any, inputs: Tensor) -> dict[str, Tensor]:
        """Ask the teacher of a network, or the memory.

        Args:
            network: A distiller, or a plain model, which has no teacher.
            inputs: Images as the network gets them, (N, C, H, W).

        Returns:
            By field, (N, ...) on the CPU.
        """
        teachers = getattr(network, "teachers", None)
        if not self.teacher or not teachers or not network.needs_teacher:
            return {}
        if self.prelogits == "all" and len(teachers) == 1:
            return _with_prelogits(network, inputs)
        key = (*teachers, network.ensemble)
        logits = self._memory(key, inputs, lambda: _plain(network.reference_logits(inputs)))
        return dict(teacher_logits=logits)


class _Watch:
    """Hooks on one network, from its pre-logits to its predictions."""

    def __init__(self, network: nn.Module, owner: LogitOutputsHook) -> None:
        self.owner = owner
        self._seen: dict[str, Tensor] = {}
        head, last = logits_of(network), last_linear(network)
        assert head is not None
        self._handles: list[Any] = [
            head.register_forward_hook(self._note_logits),
            network.register_forward_hook(self._add, with_kwargs=True),
        ]
        if last is not None:
            self._handles.append(last.register_forward_pre_hook(self._note_prelogits))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _note_logits(self, module: Any, args: Any, output: Any) -> None:
        logits = getattr(output, "logits", output)  # Hugging Face wraps them
        if isinstance(logits, Tensor):
            self._seen["logits"] = logits

    def _note_prelogits(self, module: Any, args: Any) -> None:
        self._seen["prelogits"] = args[0]

    def _add(self, network: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        seen, self._seen = self._seen, {}
        inputs = args[0] if args else kwargs.get("inputs")
        logits = seen.get("logits")
        if not isinstance(output, list) or logits is None or not isinstance(inputs, Tensor):
            return
        fields = {
            name: _plain(value)
            for name, value in seen.items()
            if value.ndim == 2 and len(value) == len(output)
        }
        if "logits" not in fields:
            return
        fields.update(self.owner.fields_of_teacher(network, inputs))
        for name, values in fields.items():
            for sample, value in zip(output, values.unbind(), strict=True):
                sample.set_field(value, name)


def _plain(values: Tensor) -> Tensor:
    return values.detach().float().cpu()


@torch.no_grad()
def _with_prelogits(network: Any, inputs: Tensor) -> dict[str, Tensor]:
    """Ask the one teacher, and look at its last layer meanwhile."""
    seen: list[Tensor] = []
    last = last_linear(network.teachers[0].model)
    if last is None:
        return dict(teacher_logits=_plain(network.reference_logits(inputs)))
    handle = last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        fields = dict(teacher_logits=_plain(network.reference_logits(inputs)))
    finally:
        handle.remove()
    prelogits = _plain(torch.cat(seen)) if seen else None  # micro-batches come one by one
    if prelogits is not None and prelogits.ndim == 2 and len(prelogits) == len(inputs):
        fields["teacher_prelogits"] = prelogits
    return fields

"""How a frozen network computes: memory layout, precision, compiler, size of its batches."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_logit._arguments import arguments_of, refuse_unknown

_PRECISIONS = dict(bfloat16=torch.bfloat16, float16=torch.float16, float32=torch.float32)


class TeacherInference:
    """Run a network that is in evaluation mode, faster than by just calling it.

    With ``micro_batch=M`` the network sees batches of exactly M images, the last one filled up
    with images of zeros, so that the compiler meets one shape and an image's result does not
    depend on how many came with it. (Measured on CPU for wide residual networks, in fp32, bf16
    and fp16: neither the position in a batch of one size nor the images beside it nor the number
    of threads changes a bit of an image's logits, sizes from 31 on agree, and below that fp32
    differs in its last bits.)

    Args:
        channels_last: Whether weights and images are kept with the channels last in memory.
        autocast: ``'bfloat16'``, ``'float16'`` or ``'float32'``; None is as the surrounding
            says, so in AMP's precision where the student trains with AMP.
        compile: Whether to use ``torch.compile``; a dict holds its arguments, such as
            ``dict(backend='inductor', mode='max-autotune')``.
        micro_batch: M; None takes each batch as it comes.

    Raises:
        ValueError: If a value is none of these.

    Example:
        >>> run = TeacherInference(micro_batch=2)
        >>> run(nn.Linear(4, 3), torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        channels_last: bool = False,
        autocast: str | None = None,
        compile: bool | Mapping[str, Any] = False,
        micro_batch: int | None = None,
    ) -> None:
        if not isinstance(channels_last, bool):
            raise ValueError(f"a teacher's channels_last is True or False, got {channels_last!r}")
        if autocast is not None and (not isinstance(autocast, str) or autocast not in _PRECISIONS):
            raise ValueError(
                f"a teacher's autocast is None or one of {', '.join(map(repr, _PRECISIONS))}, "
                f"got {autocast!r}"
            )
        if not isinstance(compile, (bool, Mapping)):
            raise ValueError(
                "a teacher's compile is True, False or a dict of torch.compile's arguments, "
                f"got {compile!r}"
            )
        if isinstance(compile, Mapping):
            known = [name for name in arguments_of(torch.compile)[0] if name != "model"]
            refuse_unknown("a teacher's compile", compile, known)
        if micro_batch is not None and (type(micro_batch) is not int or micro_batch < 1):
            raise ValueError(
                f"a teacher's micro_batch is a positive integer or None, got {micro_batch!r}"
            )
        self.channels_last = channels_last
        self.autocast = autocast
        self.compile = dict(compile) if isinstance(compile, Mapping) else compile
        self.micro_batch = micro_batch
        self._run: Callable[[Tensor], Any] | None = None

    @property
    def whole_forward(self) -> bool:
        """Whether hooks on the network's modules see one ordinary forward of the whole batch."""
        return self.micro_batch is None and self.compile is False

    def settings(self, device: torch.device) -> dict[str, Any]:
        """Describe what decides the bits of the result, beside the network and its input.

        Args:
            device: Where it runs.
        """
        return dict(
            channels_last=self.channels_last,
            precision=str(self._precision(device)),
            compile=self.compile,
            micro_batch=self.micro_batch,
        )

    def __call__(self, model: nn.Module, inputs: Tensor) -> Any:
        """Return what the network gives; half-precision tensors as float32.

        Args:
            model: The network, the same one every time.
            inputs: Images (N, C, H, W).

        Raises:
            ValueError: If the CPU has no instructions for ``autocast='float16'``.
        """
        run = self._prepare(model)
        with self._in_precision(inputs.device):
            if self.micro_batch is None:
                return self._once(run, inputs)
            outputs = [self._once(run, piece) for piece in self._pieces(inputs)]
        if not all(isinstance(output, Tensor) for output in outputs):
            return outputs[0]
        return torch.cat(outputs)[: len(inputs)]

    def plainly(self, model: nn.Module, inputs: Tensor) -> Any:
        """Return what the network gives, in its precision, but not compiled nor in pieces.

        Args:
            model: The network.
            inputs: A few images.
        """
        with self._in_precision(inputs.device):
            output = model(inputs)
        half = isinstance(output, Tensor) and output.dtype in (torch.bfloat16, torch.float16)
        return output.float() if half else output

    def _prepare(self, model: nn.Module) -> Callable[[Tensor], Any]:
        if self._run is None:
            if self.channels_last:
                model.to(memory_format=torch.channels_last)
            self._run = model
            if self.compile is not False:
                options = self.compile if isinstance(self.compile, dict) else {}
                self._run = torch.compile(model, **{"dynamic": False, **options})
        return self._run

    def _once(self, run: Callable[[Tensor], Any], inputs: Tensor) -> Any:
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        elif self.micro_batch is not None:
            # Otherwise the images' layout, a student's affair, would decide how they are rounded.
            inputs = inputs.contiguous()
        if self.compile is not False:
            torch.compiler.cudagraph_mark_step_begin()
        output = run(inputs)
        if not isinstance(output, Tensor):
            return output
        if output.dtype in (torch.bfloat16, torch.float16):
            return output.float()
        # The next call of a CUDA graph writes to the same memory.
        return output if self.compile is False else output.clone()

    def _pieces(self, inputs: Tensor) -> Iterator[Tensor]:
        assert self.micro_batch is not None
        for piece in inputs.split(self.micro_batch):
            lacking = self.micro_batch - len(piece)
            if lacking:
                piece = torch.cat([piece, piece.new_zeros(lacking, *piece.shape[1:])])
            yield piece

    def _precision(self, device: torch.device) -> torch.dtype:
        if self.autocast is not None:
            return _PRECISIONS[self.autocast]
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return torch.float32

    @contextmanager
    def _in_precision(self, device: torch.device) -> Iterator[None]:
        if self.autocast is None:
            yield
            return
        dtype = _PRECISIONS[self.autocast]
        if dtype is torch.float16 and device.type == "cpu" and not _cpu_has_float16():
            raise ValueError(
                "this CPU has no float16 instructions, which makes a teacher with "
                "autocast='float16' slower than without; use autocast='bfloat16'"
            )
        if dtype is torch.float32:
            with torch.autocast(device.type, enabled=False):
                yield
            return
        with torch.autocast(device.type, dtype=dtype):
            yield


def _cpu_has_float16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())

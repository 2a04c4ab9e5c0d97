"""A bare PyTorch loop of the same distillation."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

_Batch = tuple[Tensor, Tensor]


class ArrayImages(Dataset):
    """Images and labels in arrays, as torchvision's data sets of small images keep them."""

    def __init__(self, data: np.ndarray, targets: Sequence[int], transform: Callable) -> None:
        self.data = data
        self.targets = list(targets)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.data[index]
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        return self.transform(image), self.targets[index]


class BareLoop:
    """A teacher and a student, which give logits, a loader, SGD, and a loop that prints nothing.

    With ``fast`` in bfloat16, channels last and with a fused optimizer, with ``compile`` (a
    backend of ``torch.compile``) compiled. A ``fixed_batch`` is trained on over and over, by
    logits that the teacher gives once: what is left is the student's step.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Dataset,
        batch_size: int = 128,
        loss: str = "mse",
        tau: float = 4.0,
        alpha: float = 1.0,
        workers: int = 0,
        device: str | torch.device = "cpu",
        fast: bool = False,
        compile: str | None = None,
        fixed_batch: bool = False,
        lr: float = 0.1,
        weight_decay: float = 5e-4,
    ) -> None:
        self.device = torch.device(device)
        form: Any = torch.channels_last if fast else torch.contiguous_format
        self.memory_format = form
        self.student = student.to(self.device, memory_format=form).train()
        self.teacher = teacher.to(self.device, memory_format=form).eval()
        if compile:
            self.student.compile(backend=compile)
            self.teacher.compile(backend=compile)
        self.loss, self.tau, self.alpha, self.fast = loss, tau, alpha, fast
        parameters = list(self.student.parameters())
        groups = [
            dict(params=[p for p in parameters if p.dim() > 1], weight_decay=weight_decay),
            dict(params=[p for p in parameters if p.dim() <= 1], weight_decay=0.0),
        ]
        more: dict[str, Any] = dict(fused=True) if fast else {}
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, **more)
        self.loader = DataLoader(
            data,
            batch_size,
            shuffle=True,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            drop_last=True,
            persistent_workers=workers > 0,
        )
        self.fixed_batch = fixed_batch
        self._targets: Tensor | None = None

    def batches(self) -> Iterator[_Batch]:
        """Give batches, epoch after epoch."""
        if self.fixed_batch:
            images, labels = next(iter(self.loader))
            yield from itertools.repeat(self.to_device(images, labels))
        while True:
            yield from self.loader

    def to_device(self, images: Tensor, labels: Tensor) -> _Batch:
        """Copy a batch."""
        images = images.to(self.device, non_blocking=True)
        images = images.contiguous(memory_format=self.memory_format)
        return images, labels.to(self.device, non_blocking=True)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train on a batch and return the loss, as code that logs it does."""
        images, labels = self.to_device(images, labels)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
            # The teacher first: what its pass frees serves the student's.
            targets = self.teacher_logits(images) if self.alpha > 0 else None
            logits = self.student(images)
            loss = torch.zeros((), device=self.device)
            if self.alpha < 1:
                loss = loss + (1 - self.alpha) * F.cross_entropy(logits, labels)
            if targets is not None:
                loss = loss + self.alpha * self._distance(logits.float(), targets.float())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def teacher_logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits of a batch; those of a fixed batch are computed once."""
        if self._targets is None or not self.fixed_batch:
            with torch.no_grad():
                self._targets = self.teacher(images)
        return self._targets

    def _distance(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.loss == "mse":
            return F.mse_loss(logits, targets)
        return naive_kl(logits, targets, self.tau)


def naive_kl(student_logits: Tensor, teacher_logits: Tensor, tau: float) -> Tensor:
    """Return the loss as the formula reads, in the logits' own dtype."""
    log_p = F.log_softmax(student_logits / tau, -1)
    q = F.softmax(teacher_logits / tau, -1)
    return tau**2 * F.kl_div(log_p, q, reduction="batchmean")


def usual_transform(
    mean: Sequence[float], std: Sequence[float], crop: int | None, padding: int, flip: float
) -> Callable:
    """Return the usual augmentation of small images."""
    steps: list[Callable] = []
    if crop:
        steps.append(transforms.RandomCrop(crop, padding=padding))
    if flip:
        steps.append(transforms.RandomHorizontalFlip(flip))
    return transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(list(mean), list(std))]
    )

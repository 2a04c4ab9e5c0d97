"""The losses of torchdistill between features."""

import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import (
    arguments_of,
    check_choice,
    check_count,
    check_flag,
    check_number,
    refuse_unknown,
)

from .base import promoted_dtype


def find_torchdistill(module: str, name: str) -> Callable:
    """Return a class of torchdistill, or raise ImportError naming the extra that brings it."""
    try:
        return getattr(import_module(f"torchdistill.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchdistill":
            raise
        raise ImportError(
            f"{name} is torchdistill's, which is not installed: "
            'pip install -e ".[methods]" (or pip install "mmkd-logit[methods]")'
        ) from None


def check_settings(
    name: str, function: Callable, given: Mapping[str, Any], ours: Collection[str] = ()
) -> None:
    """Refuse a setting that torchdistill would ignore in silence or fail on later."""
    taken = arguments_of(function)[0]
    allowed = [each for each in taken if each not in ours]
    refuse_unknown(name, given, allowed)
    for setting, check in _CHECKS.items():
        if setting in given:
            check(f"{setting} of {name}", given[setting])
    missing = [n for n in allowed if taken[n].default is inspect.Parameter.empty and n not in given]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}; it takes {', '.join(allowed)}")


def _check_sizes(what: str, value: Any, least: int) -> None:
    """Check one number, or one for height and one for width."""
    for each in value if isinstance(value, (list, tuple)) and value else [value]:
        check_count(what, each, least)


_REDUCTIONS = ("mean", "sum", "none", "batchmean")
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "mode": lambda what, value: check_choice(what, value, ("code", "paper")),
    "reduction": lambda what, value: check_choice(what, value, _REDUCTIONS),
    "margin": check_number,
    "p": lambda what, value: check_number(what, value, zero=False),
    "k": lambda what, value: check_number(what, value, zero=False),
    "num_input_channels": check_count,
    "num_output_channels": check_count,
    "kernel_size": lambda what, value: _check_sizes(what, value, 1),
    "stride": lambda what, value: _check_sizes(what, value, 1),
    "padding": lambda what, value: _check_sizes(what, value, 0),
    "uses_relu": check_flag,
    "uses_bn": check_flag,
    "uses_decoder": check_flag,
}


_OUTPUT = {"path": "feature", "io": "output"}
_PAIRS = {"pair": {"student": _OUTPUT, "teacher": _OUTPUT, "weight": 1}}

# The settings that name the features, and defaults for settings without one.
_PLACES: dict[str, dict[str, Any]] = {
    "ATLoss": dict(at_pairs=_PAIRS),
    "AltActTransferLoss": dict(feature_pairs=_PAIRS),
    "FTLoss": dict(paraphraser_path="feature", translator_path="feature"),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "AltActTransferLoss": dict(margin=1.0, reduction="mean"),
}
_ELEMENTWISE = ("MSELoss", "L1Loss", "SmoothL1Loss")
_NAMES = (*_PLACES, *_ELEMENTWISE)


@MODELS.register_module()
class TorchdistillLoss(nn.Module):
    r"""One of torchdistill's losses, between two sets of features.

    =====================  ======================================================================
    ``name``               method, and in what the two sets of features must agree
    =====================  ======================================================================
    'MSELoss', 'L1Loss',   FitNets' hint (Romero et al., ICLR 2015) and the like: the whole shape
    'SmoothL1Loss'
    'ATLoss'               attention transfer (Zagoruyko and Komodakis, ICLR 2017), ``mode``
                           ``'code'`` or ``'paper'``: N, H, W
    'FTLoss'               factor transfer (Kim et al., NeurIPS 2018), ``p``, ``reduction``:
                           the whole shape
    'AltActTransferLoss'   activation boundaries (Heo et al., AAAI 2019), ``margin`` (1 here),
                           ``reduction`` (``'mean'`` over samples here, a sum over the rest):
                           the whole shape
    =====================  ======================================================================

    ``reduction='mean'`` divides by the number of all elements for the first three, by N for
    'AltActTransferLoss' and for 'FTLoss' with ``p`` other than 1, where ``p=1`` divides by all
    elements too; 'ATLoss' takes the mean over N H W (``'code'``) or N (``'paper'``).

    Features in half precision are raised first, and autocast is off inside.

    Args:
        name: One of the above.
        **settings: The loss's own.

    Raises:
        ImportError: Without torchdistill.
        ValueError: If there is no such loss, or it has no such setting.

    Example:
        >>> import torch
        >>> student, teacher = torch.rand(2, 3, 4, 4), torch.rand(2, 8, 4, 4)
        >>> loss = TorchdistillLoss('ATLoss', mode='code')
        >>> loss(student, teacher).shape, loss(teacher[:, :3], teacher[:, :3]).item()
        (torch.Size([]), 0.0)
    """

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__()
        if name not in _NAMES:
            raise ValueError(f"name={name!r} is not one of {', '.join(map(repr, _NAMES))}")
        self.name = name
        if name in _ELEMENTWISE:
            check_settings(name, getattr(nn, name), settings)
            wrap = find_torchdistill("losses.mid_level", "SimpleLossWrapper")
            place = dict(module_path="feature", io="output")
            self.loss = wrap(
                getattr(nn, name)(**settings),
                input=dict(place, is_from_teacher=False),
                target=dict(place, is_from_teacher=True),
            )
        else:
            build = find_torchdistill("losses.mid_level", name)
            settings = _DEFAULTS.get(name, {}) | settings
            check_settings(name, build, settings, _PLACES[name])
            self.loss = build(**_PLACES[name], **settings)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compare the features; only the student receives gradient.

        Args:
            student_features: ``(N, C, H, W)``; the elementwise ones take any shape.
            teacher_features: The same, but for C with attention.

        Returns:
            What the loss returns, a scalar but for ``reduction='none'``.

        Raises:
            ValueError: If the shapes do not agree as the loss needs.
        """
        self._check_shapes(student_features, teacher_features)
        student = student_features.to(promoted_dtype(student_features))
        teacher = teacher_features.detach().to(student.dtype)
        with torch.autocast(student.device.type, enabled=False):
            places = [{"feature": {"output": features}} for features in (student, teacher)]
            return self.loss(*places, targets=None)

    def _check_shapes(self, student: Tensor, teacher: Tensor) -> None:
        shapes = [tuple(student.shape), tuple(teacher.shape)]
        if self.name == "ATLoss":
            agree = len(shapes[0]) == len(shapes[1]) == 4 and shapes[0][2:] == shapes[1][2:]
            agree, what = agree and shapes[0][0] == shapes[1][0], "(N, C, H, W) of the same N, H, W"
        else:
            agree, what = shapes[0] == shapes[1], "the same shape"
        if not agree:
            raise ValueError(
                f"{self.name} takes student and teacher features of {what}, got {shapes[0]} and "
                f"{shapes[1]}; name other modules, or an adapter that makes them agree"
            )

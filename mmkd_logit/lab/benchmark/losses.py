"""Accuracy and cost of the losses."""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkd_logit.lab.tables import markdown_table
from mmkd_logit.losses import ScaledKLDivLoss
from mmkd_logit.utils.cli import say

from .bare_loop import naive_kl
from .speed import interleave, ratio, timed

SHAPES = ((128, 100), (256, 1000), (64, 21841))
TAUS = (0.05, 0.5, 1, 4, 20, 100, 1e3, 1e4, 1e6, math.inf)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Row = dict[str, Any]
_Function = Callable[[Tensor, Tensor], Tensor]


def measure_losses(args: argparse.Namespace) -> dict[str, Any]:
    """Print tables of both losses and return what is in them."""
    found: dict[str, Any] = {}
    if args.losses:
        modes = (False, True) if args.compile else (False,)
        device, seconds = args.device or "cpu", args.seconds
        found["speed"] = rows = [
            speed_row(shape, tau, compiled, device, seconds)
            for compiled in modes
            for tau in args.tau
            for shape in SHAPES
        ]
        head = ["shape", "mode", "tau", "ours, us", "F.kl_div, us", "ratio", "quartiles"]
        print("\n".join(markdown_table(head, [_speed_cells(row) for row in rows])), flush=True)
    if args.error_table:
        found["errors"] = rows = [error_row(dtype, tau) for dtype in DTYPES for tau in TAUS]
        head = ["dtype", "tau", "loss, ours", "F.kl_div", "gradient, ours", "F.kl_div"]
        print("\n".join(markdown_table(head, [_error_cells(row) for row in rows])), flush=True)
    return found


def speed_row(
    shape: tuple[int, int], tau: float, compiled: bool, device: str, seconds: float
) -> Row:
    """Time forward plus backward of both, in turn."""
    name = "x".join(map(str, shape))
    say(f"timing {name}, {'compiled' if compiled else 'eager'}, tau={tau:g}")
    torch.compiler.reset()
    functions: list[_Function] = [ScaledKLDivLoss(tau), partial(naive_kl, tau=tau)]
    if compiled:
        functions = [torch.compile(f, fullgraph=True, dynamic=False) for f in functions]
    u, v = _logits(*shape, torch.float32, device)
    steps = [partial(_time_step, function, u, v) for function in functions]
    interleave(steps, seconds=0)  # warms up
    ours, naive = interleave(steps, seconds)
    cost = ratio(ours, naive)
    return dict(
        shape=name,
        tau=tau,
        compiled=compiled,
        device=device,
        threads=torch.get_num_threads(),
        rounds=len(ours),
        ours_us=statistics.median(ours) * 1e6,
        naive_us=statistics.median(naive) * 1e6,
        ratio=cost["ratio"],
        ratio_quartiles=cost["quartiles"],
    )


def _speed_cells(row: Row) -> list[str]:
    mode = "compiled" if row["compiled"] else "eager"
    times = [f"{row[key]:.0f}" for key in ("ours_us", "naive_us")]
    low, high = row["ratio_quartiles"]
    ratios = [f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
    return [row["shape"], mode, f"{row['tau']:g}", *times, *ratios]


def error_row(dtype: torch.dtype, tau: float, samples: int = 16, classes: int = 100) -> Row:
    """Return the relative errors of both.

    The reference has 50 digits and starts from the logits as they are in the dtype. A gradient's
    error is that of its norm; it includes the rounding to the dtype.

    Example:
        >>> row = error_row(torch.float32, 1e4, samples=2, classes=5)
        >>> row["ours"]["loss"] < 1e-6 < row["naive"]["loss"]
        True
    """
    name = str(dtype).removeprefix("torch.")
    say(f"errors in {name}, tau={tau:g}")
    u, v = _logits(samples, classes, dtype, "cpu")
    want = _reference(u, v, tau)
    row: Row = dict(dtype=name, tau=tau, samples=samples, classes=classes)
    functions: dict[str, _Function] = dict(
        ours=ScaledKLDivLoss(tau), naive=partial(naive_kl, tau=tau)
    )
    for key, function in functions.items():
        loss = function(u, v)
        (gradient,) = torch.autograd.grad(loss, u)
        row[key] = dict(loss=_error(loss.detach(), want[0]), gradient=_error(gradient, want[1]))
    return row


def _error_cells(row: Row) -> list[str]:
    cells = [row[key][what] for what in ("loss", "gradient") for key in ("ours", "naive")]
    return [row["dtype"], f"{row['tau']:g}", *(f"{cell:.1e}" for cell in cells)]


def _logits(samples: int, classes: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    v = 3 * torch.randn(samples, classes, generator=generator)
    u = v + torch.randn(samples, classes, generator=generator)
    return u.to(device, dtype).requires_grad_(), v.to(device, dtype)


def _time_step(function: _Function, u: Tensor, v: Tensor) -> float:
    return timed(lambda: torch.autograd.grad(function(u, v), u), u.device).wall


def _reference(u: Tensor, v: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Return loss and gradient of the batch mean, from 50 digits."""
    import mpmath  # of the extra `dev`

    number, exp, log = (np.frompyfunc(f, 1, 1) for f in (mpmath.mpf, mpmath.exp, mpmath.log))
    with mpmath.workdps(50):
        a, b = (number(z.detach().double().numpy()) for z in (u, v))
        if tau == math.inf:
            difference = a - b
            centred = difference - difference.mean(1, keepdims=True)
            losses, gradients = (centred**2).mean(1) / 2, centred / centred.shape[1]
        else:
            p, q = (exp(z / tau) / exp(z / tau).sum(1, keepdims=True) for z in (a, b))
            losses, gradients = tau**2 * (q * (log(q) - log(p))).sum(1), tau * (p - q)
        found = losses.mean(), gradients / len(losses)
    loss, gradient = (torch.tensor(np.asarray(each, dtype=float)) for each in found)
    return loss, gradient


def _error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())

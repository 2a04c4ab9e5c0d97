"""Distillation of features with the losses of torchdistill."""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_logit.checkpoint import ADAPTERS
from mmkd_logit.losses.base import build_module
from mmkd_logit.losses.feature import check_settings, find_torchdistill
from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_number, refuse_unknown

from .build import build_loss, preserve_random_state

_MODULES = {
    "ConvReg": "models.adaptation",
    "Translator4FactorTransfer": "models.wrapper",
    "Paraphraser4FactorTransfer": "models.wrapper",
}


@MODELS.register_module()
class TorchdistillAdapter(nn.Module):
    """One of torchdistill's adapters.

    ============================  ===============================================================
    ``name``                      what
    ============================  ===============================================================
    'ConvReg'                     convolution, BatchNorm, ReLU unless ``uses_relu=False``: FitNets'
                                  regressor; without ReLU the connector of activation boundaries
    'Translator4FactorTransfer'   makes the student's factor of factor transfer
    'Paraphraser4FactorTransfer'  makes the teacher's factor, ``k`` times as many channels, and
                                  learns to restore the feature from it
    ============================  ===============================================================

    Args:
        name: One of the above.
        **settings: Its own, such as ``num_input_channels``.

    Raises:
        ImportError: Without torchdistill.
        ValueError: If there is no such adapter, or it has no such setting.

    Example:
        >>> import torch
        >>> regressor = TorchdistillAdapter(
        ...     'ConvReg', num_input_channels=4, num_output_channels=8, kernel_size=1, stride=1,
        ...     padding=0)
        >>> regressor(torch.rand(2, 4, 6, 6)).shape
        torch.Size([2, 8, 6, 6])
    """

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__()
        if name not in _MODULES:
            raise ValueError(f"name={name!r} is not one of {', '.join(map(repr, _MODULES))}")
        build = find_torchdistill(_MODULES[name], name)
        check_settings(name, build, settings)
        self.name = name
        self.module = build(**settings)

    @property
    def reconstructs(self) -> bool:
        """Whether it learns by restoring its input, with :meth:`reconstruct`."""
        return hasattr(self.module, "decoder")

    def forward(self, features: Tensor) -> Tensor:
        """Adapt features (N, C, H, W) to (N, C', H', W')."""
        return self.module.encoder(features) if self.reconstructs else self.module(features)

    def reconstruct(self, adapted: Tensor) -> Tensor:
        """Restore the features (N, C, H, W) from adapted ones."""
        return self.module.decoder(adapted)


# Distilling features beside logits.


_ADAPTER = "dict(type='mmkd_logit.TorchdistillAdapter', name='ConvReg', ...)"
_KEYS = ("student", "teacher", "loss", "weight", "student_adapter", "teacher_adapter")

# The outputs of a network's module, by whose network and the module's name.
Seen = dict[tuple[str, str], list[Tensor]]


def without_adapters(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a ``state_dict`` except those of adapters."""
    return {
        key: value
        for key, value in state.items()
        if not key.removeprefix("module.").startswith(f"{ADAPTERS}.")
    }


class _Term(NamedTuple):
    student: str
    teacher: str
    loss: nn.Module
    weight: float


class FeatureDistilling:
    r"""Losses between named modules' outputs in student and teacher.

    The total is :math:`(1 - \alpha) L_{CE} + \alpha L_{KD} + \sum_i w_i L_i(a_i(f_i), b_i(g_i))`
    with features f of the student and g of the teacher from the same forward that gives the
    logits, and optional trained adapters a and b. Everything is trained together: methods whose
    authors train in stages (FitNets, factor transfer, activation boundaries) have their joint
    form here.

    A teacher's adapter learns by restoring the teacher's features (mean squared error, weight 1)
    and gets no gradient from :math:`L_i`, as a paraphraser trained beforehand would not.

    Adapters are the distiller's child ``feature_adapters`` so that the optimizer, DDP, EMA and
    ``epoch_N.pth`` know them. ``final.pth`` leaves them out, and a checkpoint without them loads
    as if they were not there.

    Args:
        terms: For each term ``student`` and ``teacher`` (names of modules, such as
            ``'backbone.groups.1'``), ``loss`` (config or module; two tensors in, scalar out),
            ``weight`` (1 by default), ``student_adapter``, ``teacher_adapter`` (configs or
            modules; the teacher's with ``reconstruct``). A module that gives several tensors,
            such as a backbone, means its last.
        student: The student's network.

    Raises:
        ValueError: If a term is not such a dict, or the student has no such module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> student, teacher = (nn.Sequential(nn.Linear(3, 4), nn.ReLU()) for _ in range(2))
        >>> features = FeatureDistilling(
        ...     [dict(student='0', teacher='0', loss=nn.MSELoss(), weight=2)], student)
        >>> with features.watch(student, teacher) as seen:
        ...     _ = student(torch.rand(2, 3)), teacher(torch.rand(2, 3))
        >>> list(features.losses(seen))
        ['loss_feature_0']
    """

    def __init__(self, terms: Sequence[Mapping[str, Any]], student: nn.Module) -> None:
        if not isinstance(terms, (list, tuple)):
            raise ValueError(f"feature_kd must be a list of dicts, got {terms!r}")
        self.terms: list[_Term] = []
        self.adapters = nn.ModuleDict()
        for number, term in enumerate(terms):
            if not isinstance(term, Mapping) or not {"student", "teacher", "loss"} <= set(term):
                raise ValueError(
                    f"a term of feature_kd is dict(student='backbone.groups.1', "
                    f"teacher='backbone.groups.1', loss=dict(type=...)), got {term!r}"
                )
            refuse_unknown("a term of feature_kd", term, _KEYS)
            find_module(student, term["student"], "the student")
            loss = build_loss(term["loss"], "loss of a term of feature_kd")
            weight = check_number("weight", term.get("weight", 1.0))
            self.terms.append(_Term(term["student"], term["teacher"], loss, weight))
            adapters = _build_adapters(term)
            if len(adapters):
                self.adapters[str(number)] = adapters

    @contextmanager
    def watch(self, student: nn.Module, teacher: nn.Module) -> Iterator[Seen]:
        """Collect the features of the forward passes in the ``with`` block."""
        seen: Seen = defaultdict(list)

        def hook(key: tuple[str, str], module: nn.Module, args: tuple, output: Any) -> None:
            if isinstance(output, (list, tuple)) and output:
                output = output[-1]
            if not isinstance(output, Tensor):
                given = type(output).__name__
                raise ValueError(f"{key[1]} of the {key[0]} gives a {given}, no tensor")
            seen[key].append(output.clone())  # a ReLU behind it may overwrite it in place

        with ExitStack() as stack:
            for whose, network in (("student", student), ("teacher", teacher)):
                for path in dict.fromkeys(getattr(term, whose) for term in self.terms):
                    module = find_module(network, path, f"the {whose}")
                    # Hooks for one pass only: the teacher is shared by copies of the distiller.
                    handle = module.register_forward_hook(partial(hook, (whose, path)))
                    stack.callback(handle.remove)
            yield seen

    def losses(self, seen: Seen) -> dict[str, Tensor]:
        """Compute the weighted terms from what :meth:`watch` has collected.

        They are ``loss_feature_I`` and, for a teacher's adapter, ``loss_feature_I_reconstruction``.
        """
        losses = {}
        for number, term in enumerate(self.terms):
            student = _only(seen, ("student", term.student))
            teacher = _only(seen, ("teacher", term.teacher)).detach()
            if str(number) in self.adapters:
                adapters: Any = self.adapters[str(number)]
                if "student" in adapters:
                    student = adapters["student"](student)
                if "teacher" in adapters:
                    factor = adapters["teacher"](teacher)
                    restored = adapters["teacher"].reconstruct(factor).to(teacher.dtype)
                    losses[f"loss_feature_{number}_reconstruction"] = F.mse_loss(restored, teacher)
                    teacher = factor.detach()
            losses[f"loss_feature_{number}"] = term.weight * term.loss(student, teacher)
        return losses


def find_module(network: nn.Module, path: str, whose: str) -> nn.Module:
    """Return a module by its name."""
    module, found = network, ""
    for name in str(path).split("."):
        children = dict(module.named_children())
        if name not in children:
            inside = f" in {found}" if found else ""
            raise ValueError(
                f"{whose} has no module {path!r}; the names{inside} are "
                f"{', '.join(children) or 'none'}"
            )
        module, found = children[name], f"{found}.{name}".lstrip(".")
    return module


def _only(seen: Seen, key: tuple[str, str]) -> Tensor:
    outputs = seen[key]
    if len(outputs) != 1:
        raise ValueError(
            f"{key[1]} of the {key[0]} ran {len(outputs)} times in one forward; name a module "
            "that runs once"
        )
    return outputs[0]


def _reconstructs(adapter: nn.Module) -> bool:
    return getattr(adapter, "reconstructs", hasattr(adapter, "reconstruct"))


def _build_adapters(term: Mapping[str, Any]) -> nn.ModuleDict:
    adapters = nn.ModuleDict()
    with preserve_random_state():  # the student starts as it would without them
        for whose in ("student", "teacher"):
            given = term.get(f"{whose}_adapter")
            if given is not None:
                adapters[whose] = build_module(f"{whose}_adapter", copy.deepcopy(given), _ADAPTER)
    if "teacher" in adapters and not _reconstructs(adapters["teacher"]):
        raise ValueError(
            f"teacher_adapter {term['teacher_adapter']!r} does not restore its input, and "
            "nothing else would train it; adapt the student's features instead"
        )
    return adapters

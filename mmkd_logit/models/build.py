"""Building students, losses and layers from configs."""

import copy
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.models import BaseClassifier
from torch import Tensor, nn

from mmkd_logit.losses.base import LOSS, build_module
from mmkd_logit.registry import find_class
from mmkd_logit.utils.arguments import first_line


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's (CPU and every CUDA device's) generators on exit.

    Building a network draws numbers even when its weights are loaded afterwards; without this a
    run with a teacher would shuffle and augment differently from one without.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def build_student(
    student: dict | nn.Module, data_preprocessor: dict | nn.Module | None
) -> nn.Module:
    """Build a classifier, with this data preprocessor if its config has none."""
    if isinstance(student, nn.Module):
        if not isinstance(student, BaseModel):
            raise ValueError(
                f"the student {type(student).__name__} is no mmengine.model.BaseModel; derive it "
                "from that, with a forward(inputs, data_samples, mode) that gives the logits for "
                "mode='tensor' and a dict of losses for mode='loss'"
            )
        return student
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    if not isinstance(student, dict) or not student.get("type"):
        raise ValueError(
            "student must be the config of a classifier, such as "
            f"dict(type='ImageClassifier', backbone=...), or a module, got {student!r}"
        )
    # A student that comes from a config of a package has the scope of that.
    with DefaultScope.overwrite_default_scope(student.get("_scope_")):
        find_class("student", MMPRETRAIN_MODELS, student["type"])
    if not isinstance(data_preprocessor, (Mapping, nn.Module, type(None))):
        raise ValueError(
            "data_preprocessor must be a dict such as dict(mean=[...], std=[...]), a module or "
            f"None, got {data_preprocessor!r}"
        )
    student = copy.deepcopy(student)  # mmpretrain writes into the config it builds from
    if data_preprocessor is not None and student.get("data_preprocessor") is None:
        student["data_preprocessor"] = copy.deepcopy(data_preprocessor)
    return MMPRETRAIN_MODELS.build(student)


def known_logits(network: nn.Module) -> list[str]:
    """Name the module whose output is the logits, a head or a wrapped network, where that is sure.

    Of a ``BaseModel`` other than mmpretrain's classifiers these names may mean anything.
    """
    children = dict(network.named_children())
    if isinstance(network, BaseModel) and not isinstance(network, BaseClassifier):
        return []
    return [name for name in ("head", "model") if name in children][:1]


def find_logits(student: nn.Module, inputs: Tensor) -> list[str]:
    """Name the modules, outermost first, whose output is what ``mode='tensor'`` returns."""
    probe, seen = copy.deepcopy(student).eval(), []

    def note(name: str, module: nn.Module, args: tuple, output: Any) -> None:
        seen.append((name, getattr(output, "logits", output)))

    for name, module in probe.named_modules():
        if name:
            module.register_forward_hook(partial(note, name))
    with torch.no_grad(), preserve_random_state():
        logits = as_logits(probe(inputs[:1], mode="tensor"), "the student")
    names = [name for name, output in reversed(seen) if output is logits]
    if not names:
        raise ValueError(
            f"the logits of the student {type(student).__name__} are the output of none of its "
            "modules; name the module that gives them, as in logits='fc'. There are "
            f"{', '.join(dict(student.named_children()))}"
        )
    return names


def as_logits(output: Any, whose: str) -> Tensor:
    """Return the logits in a network's output, or raise ValueError."""
    logits = getattr(output, "logits", output)  # Hugging Face wraps them
    if not isinstance(logits, Tensor):
        named = "; name the module that gives them, as in logits='fc'" * (whose == "the student")
        raise ValueError(
            f"{whose} gives a {type(output).__name__}, not one (N, K) tensor of logits; "
            f"only classifiers with one linear output can teach and be taught{named}"
        )
    return logits


def build_loss(loss: dict | nn.Module, what: str = "loss_kd") -> nn.Module:
    """Build a loss, or raise ValueError if it has state or compares logits with labels."""
    module = build_module(what, loss)
    forward = list(inspect.signature(module.forward).parameters)
    if len(forward) > 1 and forward[1] in ("label", "labels", "gt_label"):
        raise ValueError(
            f"{what} must compare two sets of logits, and {type(module).__name__} compares logits "
            f"with labels; take a loss such as {LOSS}"
        )
    if module.state_dict() or list(module.parameters()):
        raise ValueError(
            f"the loss {type(module).__name__} has parameters or buffers; they would be neither "
            "trained nor saved"
        )
    return module


# The layers that a network's config names, with a right one.
_LAYERS: dict[str, tuple[Callable[[dict], Any], str]] = dict(
    conv_cfg=(lambda cfg: build_conv_layer(cfg, 8, 8, 1), "dict(type='Conv2d')"),
    norm_cfg=(lambda cfg: build_norm_layer(cfg, 32), "dict(type='BN')"),
    act_cfg=(build_activation_layer, "dict(type='ReLU6')"),
)


def check_layers(init_cfg: Any, **layers: Any) -> None:
    """Raise ValueError unless the configs of a network's layers, if given, build such layers."""
    for name, cfg in layers.items():
        build, example = _LAYERS[name]
        problem = "" if isinstance(cfg, dict) and cfg.get("type") else "no dict with a type"
        try:
            if cfg is not None and not problem:
                build(dict(cfg))
        except Exception as error:  # of mmcv's registry or of the layer
            problem = first_line(error)
        if cfg is not None and problem:
            raise ValueError(f"{name}={cfg!r} builds no layer ({problem}); take {example}")
    for each in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if each is not None and not (isinstance(each, dict) and each.get("type")):
            raise ValueError(
                "init_cfg must be a dict such as dict(type='Kaiming', layer='Conv2d'), a list of "
                f"them, or None, got {init_cfg!r}"
            )

"""Whether a checkpoint that training begins with is of the network that is trained."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmkd_logit._arguments import type_name

# Of another network next to nothing fits; what is begun with a part of another's has more.
_FIT = 0.1


def check_loaded(model: nn.Module, checkpoint: Any, source: str) -> None:
    """Compare a checkpoint with a model, before MMEngine loads what fits and warns of the rest.

    Fine-tuning may bring another head, so the head is left out. Networks that rename what they
    load are not looked at.

    Args:
        model: Not wrapped.
        checkpoint: As it was read.
        source: The file, for the message.

    Raises:
        ValueError: If it holds no weights, or hardly any of them fit.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{source} holds a {type(checkpoint).__name__} and no weights; a checkpoint is a dict "
            "with a state_dict, or a state_dict"
        )
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping) or _renames(model):
        return
    given = {str(key).removeprefix("module."): value for key, value in state.items()}
    wanted = {
        name: value
        for name, value in model.named_parameters()
        if not name.startswith(("head.", "feature_adapters."))
    }
    misfits = [
        name
        for name, value in wanted.items()
        if not isinstance(given.get(name), Tensor) or given[name].shape != value.shape
    ]
    count = sum(value.numel() for value in wanted.values())
    lacking = sum(wanted[name].numel() for name in misfits)
    if count - lacking < _FIT * count:
        first = misfits[0]
        theirs = given.get(first)
        what = f"has {tuple(theirs.shape)}" if isinstance(theirs, Tensor) else "has none"
        raise ValueError(
            f"{source} is of another network: {count - lacking} of {count} weights fit; of "
            f"{first}, {tuple(wanted[first].shape)}, it {what}. Take a checkpoint of this network, "
            "or train without it"
        )


def _renames(model: nn.Module) -> bool:
    return any(module._load_state_dict_pre_hooks for module in model.modules())


def check_pretrained(cfg: Any, model: nn.Module) -> None:
    """Do the same with the files that a model's config names in ``init_cfg``.

    Args:
        cfg: Of the model.
        model: Built of it, not wrapped.

    Raises:
        ValueError: If a file is of another network.
    """
    for spec, module in _places(cfg, model):
        given = spec.get("init_cfg")
        for init in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(init, dict) and type_name(init) == "Pretrained":
                _check_file(init, module)


def _places(cfg: Any, model: nn.Module) -> Iterator[tuple[dict, nn.Module]]:
    if not isinstance(cfg, dict):
        return
    if isinstance(cfg.get("students"), dict):
        students: Any = model.get_submodule("students")
        for name, student in cfg["students"].items():
            yield from _places(student, students[name])
        return
    network: Any = cfg.get("student", cfg)  # a distiller has its student's modules
    if isinstance(network, dict):
        yield network, model
        backbone = getattr(model, "backbone", None)
        if isinstance(network.get("backbone"), dict) and isinstance(backbone, nn.Module):
            yield network["backbone"], backbone


def _check_file(init: dict, module: nn.Module) -> None:
    source = str(init["checkpoint"])
    checkpoint = CheckpointLoader.load_checkpoint(source, map_location="cpu")
    state = checkpoint.get("state_dict", checkpoint)
    prefix = init.get("prefix")
    if prefix:
        begin = f"{prefix.rstrip('.')}."
        state = {key.removeprefix(begin): v for key, v in state.items() if key.startswith(begin)}
    check_loaded(module, state, f"{source} of init_cfg")

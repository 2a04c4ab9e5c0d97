"""The network of a teacher, built and given its weights."""

import copy
import logging
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ._feature_adapters import without_adapters
from ._finite_weights import broken_weights, describe_broken
from ._key_names import with_mmpretrain_names
from ._teacher_spec import TeacherSpec


def freeze(model: nn.Module) -> nn.Module:
    """Put a network into evaluation mode and take the gradient from its parameters."""
    model.eval()
    return model.requires_grad_(False)


def build_network(spec: TeacherSpec) -> nn.Module:
    """Build a teacher's network and load its weights.

    Args:
        spec: What to build.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it lacks weights of the network, has others or such that are not finite.
    """
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope(spec.scope):
        model = MODELS.build(copy.deepcopy(spec.model))  # mmpretrain writes into it
    if spec.checkpoint is None:
        if hasattr(model, "init_weights"):
            model.init_weights()
        print_log(f"Teacher {spec.name} keeps its own weights (checkpoint=None).", "current")
        return model
    try:
        checkpoint = CheckpointLoader.load_checkpoint(spec.checkpoint, map_location="cpu")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the checkpoint {spec.checkpoint} of teacher {spec.name} does not exist. Train it "
            "first (tools/train.py with --train-teacher does), or set model.teacher.checkpoint."
        ) from None
    _load_exactly(model, checkpoint, spec)
    print_log(f"Teacher {spec.name} loaded from {spec.checkpoint}.", "current", level=logging.INFO)
    return model


def _load_exactly(model: nn.Module, checkpoint: Any, spec: TeacherSpec) -> None:
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{spec.checkpoint} holds no state_dict for teacher {spec.name}")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = without_adapters(state)  # of the epoch_N.pth of a run that distilled features
    try:
        state = with_mmpretrain_names(state, model.state_dict())
        result = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:  # sizes differ, or names we cannot translate
        raise ValueError(
            f"{spec.checkpoint} does not fit teacher {spec.name}: {' '.join(str(error).split())}. "
            "Check that config and checkpoint are of the same network."
        ) from None
    # BatchNorm's counter is not used in evaluation and missing from old checkpoints.
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"{spec.checkpoint} does not fit teacher {spec.name}: missing keys "
            f"{missing or 'none'}, unexpected keys {list(result.unexpected_keys) or 'none'}. "
            "Check that config and checkpoint are of the same network."
        )
    broken = broken_weights(model)
    if broken:
        raise ValueError(
            f"{spec.checkpoint} cannot teach: in teacher {spec.name} its {describe_broken(broken)} "
            "hold NaN or infinity, as after a training that diverged; take an earlier checkpoint, "
            "or train the teacher again"
        )

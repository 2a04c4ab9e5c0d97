"""Running things: configs, launch, checkpoints, command lines."""

from .checkpoint import UnsafeCheckpointError, install_safe_checkpoint_loading

__all__ = ["UnsafeCheckpointError", "install_safe_checkpoint_loading"]

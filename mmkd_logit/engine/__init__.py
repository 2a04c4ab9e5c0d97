"""Running things: configs, launch, checkpoints, command lines."""

from .checkpoint import UnsafeCheckpointError, install_safe_checkpoint_loading
from .safe_reading import install_safe_reading

__all__ = ["UnsafeCheckpointError", "install_safe_checkpoint_loading", "install_safe_reading"]

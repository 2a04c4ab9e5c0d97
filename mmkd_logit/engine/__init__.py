"""Running things: configs, launch, checkpoints, command lines."""

from mmkd_logit.checkpoint import (
    UnsafeCheckpointError,
    install_safe_checkpoint_loading,
    install_safe_reading,
)

__all__ = ["UnsafeCheckpointError", "install_safe_checkpoint_loading", "install_safe_reading"]

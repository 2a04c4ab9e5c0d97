"""Running things: configs, launch, checkpoints, command lines."""

import gc

# Imports leave no garbage, and to look for it takes a fifth of the time of a command's start.
_collects = gc.isenabled()
gc.disable()
try:
    from mmkd_logit.checkpoint import (
        UnsafeCheckpointError,
        install_safe_checkpoint_loading,
        install_safe_reading,
    )
finally:
    if _collects:
        gc.enable()

__all__ = ["UnsafeCheckpointError", "install_safe_checkpoint_loading", "install_safe_reading"]

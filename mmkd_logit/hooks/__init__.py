"""What happens around training."""

from .final_checkpoint_hook import FinalCheckpointHook
from .progress_bar_hook import ProgressBarHook

__all__ = ["FinalCheckpointHook", "ProgressBarHook"]

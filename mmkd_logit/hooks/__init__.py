"""What happens around training."""

from .final_checkpoint_hook import FinalCheckpointHook
from .progress_bar_hook import ProgressBarHook
from .sequential_teacher_hook import SequentialTeacherHook

__all__ = ["FinalCheckpointHook", "ProgressBarHook", "SequentialTeacherHook"]

"""What happens around training."""

from .final_checkpoint_hook import FinalCheckpointHook
from .label_noise_hook import LabelNoiseHook
from .progress_bar_hook import ProgressBarHook
from .sequential_teacher_hook import SequentialTeacherHook

__all__ = [
    "FinalCheckpointHook",
    "LabelNoiseHook",
    "ProgressBarHook",
    "SequentialTeacherHook",
]

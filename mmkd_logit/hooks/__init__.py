"""What happens around training."""

from .channels_last_hook import ChannelsLastHook
from .classifier_sum_hook import ClassifierSumHook
from .final_checkpoint_hook import FinalCheckpointHook
from .label_noise_hook import LabelNoiseHook
from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .logit_outputs_hook import LogitOutputsHook
from .progress_bar_hook import ProgressBarHook
from .resume_state_hook import ResumeStateHook
from .sequential_teacher_hook import SequentialTeacherHook
from .train_accuracy_hook import TrainAccuracyHook

__all__ = [
    "ChannelsLastHook",
    "ClassifierSumHook",
    "FinalCheckpointHook",
    "LabelNoiseHook",
    "LazyRuntimeInfoHook",
    "LogitOutputsHook",
    "ProgressBarHook",
    "ResumeStateHook",
    "SequentialTeacherHook",
    "TrainAccuracyHook",
]

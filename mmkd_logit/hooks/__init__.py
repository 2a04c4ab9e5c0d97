"""What happens around training."""

from .async_log import LazyRuntimeInfoHook
from .channels_last import ChannelsLastHook
from .classifier_sum import ClassifierSumHook
from .finite_loss import FiniteLossHook
from .label_noise import LabelNoiseHook
from .logit_outputs import LogitOutputsHook
from .progress_bar import ProgressBarHook
from .sequential_teacher import SequentialTeacherHook
from .sync_buffers import SyncBuffersBeforeEvalHook
from .train_accuracy import TrainAccuracyHook

__all__ = [
    "ChannelsLastHook",
    "ClassifierSumHook",
    "FiniteLossHook",
    "LabelNoiseHook",
    "LazyRuntimeInfoHook",
    "LogitOutputsHook",
    "ProgressBarHook",
    "SequentialTeacherHook",
    "SyncBuffersBeforeEvalHook",
    "TrainAccuracyHook",
]

"""What happens around training."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .channels_last_hook import ChannelsLastHook
from .classifier_sum_hook import ClassifierSumHook
from .final_checkpoint_hook import FinalCheckpointHook
from .finite_loss_hook import FiniteLossHook
from .label_noise_hook import LabelNoiseHook
from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .logit_outputs_hook import LogitOutputsHook
from .own_best_checkpoint_hook import OwnBestCheckpointHook
from .preemption_hook import PreemptionHook
from .progress_bar_hook import ProgressBarHook
from .resume_state_hook import ResumeStateHook
from .run_check_hook import RunCheckHook
from .same_buffers_hook import SameBuffersHook
from .sequential_teacher_hook import SequentialTeacherHook
from .train_accuracy_hook import TrainAccuracyHook

__all__ = [
    "AtomicCheckpointHook",
    "ChannelsLastHook",
    "ClassifierSumHook",
    "FinalCheckpointHook",
    "FiniteLossHook",
    "LabelNoiseHook",
    "LazyRuntimeInfoHook",
    "LogitOutputsHook",
    "OwnBestCheckpointHook",
    "PreemptionHook",
    "ProgressBarHook",
    "ResumeStateHook",
    "RunCheckHook",
    "SameBuffersHook",
    "SequentialTeacherHook",
    "TrainAccuracyHook",
]

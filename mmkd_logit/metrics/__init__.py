"""What is measured beside accuracy."""

from .clean_label_accuracy import CleanLabelAccuracy
from .expected_calibration_error import ExpectedCalibrationError
from .logit_distance import LogitDistance
from .logit_dump import LogitDump
from .logit_statistics import LogitStatistics
from .negative_log_likelihood import NegativeLogLikelihood
from .noisy_label_accuracy import NoisyLabelAccuracy
from .per_class_accuracy import PerClassAccuracy
from .teacher_agreement import TeacherAgreement

__all__ = [
    "CleanLabelAccuracy",
    "ExpectedCalibrationError",
    "LogitDistance",
    "LogitDump",
    "LogitStatistics",
    "NegativeLogLikelihood",
    "NoisyLabelAccuracy",
    "PerClassAccuracy",
    "TeacherAgreement",
]

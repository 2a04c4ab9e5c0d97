"""What is measured beside accuracy."""

from .accuracy import CleanLabelAccuracy, NoisyLabelAccuracy, PerClassAccuracy
from .calibration import ExpectedCalibrationError
from .export import LogitDump
from .logits import (
    LogitDistance,
    LogitStatistics,
    NegativeLogLikelihood,
    TeacherAccuracy,
    TeacherAgreement,
)

__all__ = [
    "CleanLabelAccuracy",
    "ExpectedCalibrationError",
    "LogitDistance",
    "LogitDump",
    "LogitStatistics",
    "NegativeLogLikelihood",
    "NoisyLabelAccuracy",
    "PerClassAccuracy",
    "TeacherAccuracy",
    "TeacherAgreement",
]

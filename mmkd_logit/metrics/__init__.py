"""What is measured beside accuracy."""

from .clean_label_accuracy import CleanLabelAccuracy
from .expected_calibration_error import ExpectedCalibrationError
from .logit_dump import LogitDump

__all__ = ["CleanLabelAccuracy", "ExpectedCalibrationError", "LogitDump"]

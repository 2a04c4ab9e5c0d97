"""What is measured beside accuracy."""

from .expected_calibration_error import ExpectedCalibrationError

__all__ = ["ExpectedCalibrationError"]

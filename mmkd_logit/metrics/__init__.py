"""What is measured beside accuracy."""

from .clean_label_accuracy import CleanLabelAccuracy

__all__ = ["CleanLabelAccuracy"]

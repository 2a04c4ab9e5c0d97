"""Data sets."""

from .data_subset import DataSubset
from .digits import Digits
from .label_noise import LabelNoise
from .noisy_label_dataset import NoisyLabelDataset

__all__ = ["DataSubset", "Digits", "LabelNoise", "NoisyLabelDataset"]

"""Data sets."""

from .digits import Digits
from .label_noise import LabelNoise
from .noisy_label_dataset import NoisyLabelDataset

__all__ = ["Digits", "LabelNoise", "NoisyLabelDataset"]

"""Data sets."""

from .data_subset import DataSubset
from .digits import Digits
from .label_noise import LabelNoise
from .noisy_label_dataset import NoisyLabelDataset
from .random_images import RandomImages

__all__ = ["DataSubset", "Digits", "LabelNoise", "NoisyLabelDataset", "RandomImages"]

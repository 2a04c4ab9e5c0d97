"""Data sets."""

from . import _silent_import  # noqa: F401  (before anything that imports mmpretrain's)
from .batch_collate import batch_collate
from .data_subset import DataSubset
from .digits import Digits
from .in_memory_dataset import InMemoryDataset
from .label_noise import LabelNoise
from .noisy_label_dataset import NoisyLabelDataset
from .random_images import RandomImages
from .sample_batch import SampleBatch
from .sample_key import SampleKey
from .seeded_dataset import SeededDataset
from .seeded_sampler import SeededSampler
from .views import Views

__all__ = [
    "DataSubset",
    "Digits",
    "InMemoryDataset",
    "LabelNoise",
    "NoisyLabelDataset",
    "RandomImages",
    "SampleBatch",
    "SampleKey",
    "SeededDataset",
    "SeededSampler",
    "Views",
    "batch_collate",
]

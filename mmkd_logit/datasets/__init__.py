"""Data sets."""

from mmkd_logit.utils import silent_import as _silent_import  # noqa: F401  (before anything that imports mmpretrain's)

from .digits import Digits, RandomImages
from .draws import SampleKey
from .in_memory import InMemoryDataset, SampleBatch, Views, batch_collate
from .label_noise import LabelNoise, NoisyLabelDataset
from .seeding import SeededDataset, SeededSampler
from .subset import DataSubset

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

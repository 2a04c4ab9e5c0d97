"""Losses between two sets of logits, or of features: tensors in, scalar out."""

from .binary_kl import ScaledBinaryKLDivLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .feature import TorchdistillLoss
from .kl import ScaledKLDivLoss
from .mse import LogitMSELoss
from .standardization import LogitStandardization

__all__ = [
    "DISTLoss",
    "DKDLoss",
    "LogitMSELoss",
    "LogitStandardization",
    "ScaledBinaryKLDivLoss",
    "ScaledKLDivLoss",
    "TorchdistillLoss",
]

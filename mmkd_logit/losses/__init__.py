"""Losses between two sets of logits, or of features: tensors in, scalar out."""

from .dist_loss import DISTLoss
from .dkd_loss import DKDLoss
from .logit_mse_loss import LogitMSELoss
from .logit_standardization import LogitStandardization
from .scaled_kl_div_loss import ScaledKLDivLoss
from .torchdistill_loss import TorchdistillLoss

__all__ = [
    "DISTLoss",
    "DKDLoss",
    "LogitMSELoss",
    "LogitStandardization",
    "ScaledKLDivLoss",
    "TorchdistillLoss",
]

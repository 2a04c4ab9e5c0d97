"""Losses between two sets of logits: tensors in, scalar out."""

from .logit_mse_loss import LogitMSELoss
from .scaled_kl_div_loss import ScaledKLDivLoss

__all__ = ["LogitMSELoss", "ScaledKLDivLoss"]

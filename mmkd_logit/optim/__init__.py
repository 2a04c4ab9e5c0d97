"""How parameters are updated."""

from .autocast import AutocastOptimWrapper

__all__ = ["AutocastOptimWrapper"]

"""How parameters are updated."""

from .autocast import AutocastOptimWrapper
from .merged_groups import MergedGroupsOptimConstructor

__all__ = ["AutocastOptimWrapper", "MergedGroupsOptimConstructor"]

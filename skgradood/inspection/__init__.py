"""Figures (matplotlib)."""

from skgradood.inspection._comparison import ComparisonDisplay

__all__ = ["ComparisonDisplay"]

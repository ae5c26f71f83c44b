"""Figures (matplotlib)."""

from skgradood.inspection._comparison import ComparisonDisplay
from skgradood.inspection._fisher import FisherDisplay
from skgradood.inspection._layers import LayerCorrelationDisplay, LayerNormDisplay
from skgradood.inspection._quantiles import QuantileDisplay

__all__ = [
    "ComparisonDisplay",
    "FisherDisplay",
    "LayerCorrelationDisplay",
    "LayerNormDisplay",
    "QuantileDisplay",
]

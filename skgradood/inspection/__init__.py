"""Figures (matplotlib), and the report on a detector's verdicts (HTML)."""

from skgradood.inspection._comparison import ComparisonDisplay
from skgradood.inspection._fisher import FisherDisplay
from skgradood.inspection._layers import LayerCorrelationDisplay, LayerNormDisplay
from skgradood.inspection._quantiles import QuantileDisplay
from skgradood.inspection._report import DetectionReport

__all__ = [
    "ComparisonDisplay",
    "DetectionReport",
    "FisherDisplay",
    "LayerCorrelationDisplay",
    "LayerNormDisplay",
    "QuantileDisplay",
]

"""Figures (matplotlib), and the report on a detector's verdicts (HTML)."""

from skgradood.inspection._comparison import ComparisonDisplay
from skgradood.inspection._fisher import FisherDisplay
from skgradood.inspection._layers import LayerCorrelationDisplay, LayerNormDisplay
from skgradood.inspection._likelihoods import LikelihoodDisplay
from skgradood.inspection._quantiles import QuantileDisplay
from skgradood.inspection._rank_correlation import RankCorrelationDisplay
from skgradood.inspection._report import DetectionReport
from skgradood.inspection._runtime import RuntimeDisplay
from skgradood.inspection._sweep import SweepDisplay

__all__ = [
    "ComparisonDisplay",
    "DetectionReport",
    "FisherDisplay",
    "LayerCorrelationDisplay",
    "LayerNormDisplay",
    "LikelihoodDisplay",
    "QuantileDisplay",
    "RankCorrelationDisplay",
    "RuntimeDisplay",
    "SweepDisplay",
]

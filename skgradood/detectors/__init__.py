"""Detectors: from features, or from any estimator's scores, to verdicts."""

from skgradood.detectors._combined import CombinedDetector
from skgradood.detectors._conformal import ConformalDetector
from skgradood.detectors._fisher_mmd import FisherMMDDetector
from skgradood.detectors._joint_density import ChiSquareJointDensity
from skgradood.detectors._likelihood import LogLikelihoodDetector, TypicalityDetector
from skgradood.detectors._likelihood_ratio import LikelihoodRatioDetector
from skgradood.detectors._recommended import on_columns, recommended_detector
from skgradood.detectors._regret import LikelihoodRegretDetector
from skgradood.detectors._rnd import RandomNetworkDistillationDetector
from skgradood.detectors._rose import RoseDetector
from skgradood.detectors._score_test import ScoreTestDetector
from skgradood.detectors._stein import SteinDiscrepancyDetector
from skgradood.detectors._waic import WaicDetector

__all__ = [
    "ChiSquareJointDensity",
    "CombinedDetector",
    "ConformalDetector",
    "FisherMMDDetector",
    "LikelihoodRatioDetector",
    "LikelihoodRegretDetector",
    "LogLikelihoodDetector",
    "RandomNetworkDistillationDetector",
    "RoseDetector",
    "ScoreTestDetector",
    "SteinDiscrepancyDetector",
    "TypicalityDetector",
    "WaicDetector",
    "on_columns",
    "recommended_detector",
]

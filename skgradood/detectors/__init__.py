"""Detectors: from features, or from any estimator's scores, to verdicts."""

from skgradood.detectors._conformal import ConformalDetector
from skgradood.detectors._joint_density import ChiSquareJointDensity

__all__ = ["ChiSquareJointDensity", "ConformalDetector"]

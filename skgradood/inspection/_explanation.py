"""Which layers speak against a sample: the detector's own view, found inside Pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skgradood.detectors import ConformalDetector


@dataclass(frozen=True)
class LayerEvidence:
    """How far every layer of every sample lies from in-distribution samples.

    Attributes
    ----------
    names : list of str
        Names of the L layers.
    alone : ndarray of shape (n, L)
        Normal scores of each layer by itself; positive for large values, NaN where the sample has
        no finite features.
    given_others : ndarray of shape (n, L) or None
        Normal scores of each layer given all others, where the detector models dependence: a
        sample may be far out although no layer by itself is.
    """

    names: list[str]
    alone: np.ndarray
    given_others: np.ndarray | None = None


def layer_evidence(detector: Any, X: Any) -> LayerEvidence | None:
    """Ask a fitted detector for its layers' normal scores.

    Parameters
    ----------
    detector : estimator
        A detector with ``layer_scores``; or what holds one: a Pipeline, a FrozenEstimator, a
        ConformalDetector, or a combination with ``detectors_``.
    X : array-like of shape (n, ...)
        Samples.

    Returns
    -------
    LayerEvidence or None
        None if no detector in it knows layers.
    """
    if isinstance(detector, ConformalDetector):
        return layer_evidence(detector.detector_, X)
    if isinstance(detector, FrozenEstimator):
        return layer_evidence(detector.estimator, X)
    if isinstance(detector, Pipeline):
        return _evidence_of_pipeline(detector, X)
    if hasattr(detector, "layer_scores"):
        alone = detector.layer_scores(X)
        names = getattr(detector, "feature_names_in_", range(alone.shape[1]))
        return LayerEvidence(list(map(str, names)), alone, _given_others(detector, alone))
    members = (layer_evidence(member, X) for member in getattr(detector, "detectors_", ()))
    return next((evidence for evidence in members if evidence is not None), None)


def _evidence_of_pipeline(pipeline: Pipeline, X: Any) -> LayerEvidence | None:
    detector = pipeline.steps[-1][1]
    if len(pipeline.steps) == 1:
        return layer_evidence(detector, X)
    if not _knows_layers(detector):
        return None
    transformers = pipeline[:-1]
    evidence = layer_evidence(detector, transformers.transform(X))
    if evidence is None or not hasattr(transformers, "get_feature_names_out"):
        return evidence
    names = list(map(str, transformers.get_feature_names_out()))
    return LayerEvidence(names, evidence.alone, evidence.given_others)


def _knows_layers(detector: Any) -> bool:
    """Whether features are worth computing for this detector."""
    inner = (ConformalDetector, FrozenEstimator, Pipeline)
    return isinstance(detector, inner) or any(
        hasattr(detector, name) for name in ("layer_scores", "detectors_")
    )


def _given_others(detector: Any, alone: np.ndarray) -> np.ndarray | None:
    """Conditional normal scores (P z)_l / √P_ll, P the inverse of the correlation."""
    if not hasattr(detector, "correlation_"):
        return None
    precision = np.linalg.inv(detector.correlation_)
    conditional = np.zeros_like(alone)
    scores = alone[:, detector.support_]
    conditional[:, detector.support_] = scores @ precision / np.sqrt(np.diag(precision))
    return conditional

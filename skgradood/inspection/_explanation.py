"""Which layers speak against a sample: the detector's own view, found inside Pipelines."""

from __future__ import annotations

from collections.abc import Sequence
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

    def __post_init__(self) -> None:
        n_layers = self.alone.shape[1]
        if len(self.names) != n_layers:
            raise ValueError(
                f"names must hold {n_layers} names, one a layer; got {len(self.names)}: "
                f"{self.names[:5]}{'...' if len(self.names) > 5 else ''}. Check "
                "get_feature_names_out of the steps before the detector."
            )


def layer_evidence(
    detector: Any, X: Any, names: Sequence[str] | None = None
) -> LayerEvidence | None:
    """Ask a fitted detector for its layers' normal scores.

    Parameters
    ----------
    detector : estimator
        A detector with ``layer_scores``; or what holds one: a Pipeline, a FrozenEstimator, a
        ConformalDetector, or a combination with ``detectors_``.
    X : array-like of shape (n, ...)
        Samples.
    names : sequence of str or None, default=None
        Names of the columns of X, for a detector that was fitted on columns without names; None
        if they have none, and are told by their numbers.

    Returns
    -------
    LayerEvidence or None
        None if no detector in it knows layers.

    Raises
    ------
    ValueError
        If there are not as many names as layers.
    """
    if isinstance(detector, ConformalDetector):
        return layer_evidence(detector.detector_, X, names)
    if isinstance(detector, FrozenEstimator):
        return layer_evidence(detector.estimator, X, names)
    if isinstance(detector, Pipeline):
        return _evidence_of_pipeline(detector, X, names)
    if hasattr(detector, "layer_scores"):
        alone = detector.layer_scores(X)
        numbers = range(alone.shape[1])
        own = getattr(detector, "feature_names_in_", numbers if names is None else names)
        return LayerEvidence(list(map(str, own)), alone, _given_others(detector, alone))
    members = (layer_evidence(member, X, names) for member in getattr(detector, "detectors_", ()))
    return next((evidence for evidence in members if evidence is not None), None)


def _evidence_of_pipeline(
    pipeline: Pipeline, X: Any, names: Sequence[str] | None
) -> LayerEvidence | None:
    *steps, (_, detector) = pipeline.steps
    if not _knows_layers(detector):
        return None
    for _, step in steps:
        if step is not None and not isinstance(step, str):  # None and "passthrough" do nothing
            names = _names_after(step, names)
            X = step.transform(X)
    return layer_evidence(detector, X, names)


def _names_after(step: Any, names: Sequence[str] | None) -> list[str] | None:
    """Names of the columns that a fitted transformer makes; None if it does not tell."""
    # scikit-learn refuses other names than those that a step was fitted on.
    known = None if names is None or hasattr(step, "feature_names_in_") else np.array(names, object)
    try:
        return list(map(str, step.get_feature_names_out(known)))
    except AttributeError:  # of the step, or of one inside it
        return None


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

"""What all detectors share: scores become decisions by one threshold."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils._param_validation import Interval, StrOptions

CONTAMINATION_CONSTRAINT = [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")]
_AUTO_CONTAMINATION = 0.05


class Detector(OutlierMixin, BaseEstimator):
    """Base of the detectors; a subclass has ``score_samples`` and sets ``offset_`` in ``fit``.

    ``fit_predict`` comes from scikit-learn's OutlierMixin.
    """

    def decision_function(self, X: Any) -> np.ndarray:
        """Score samples relative to the threshold.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,), float64
            ``score_samples(X) - offset_``: negative for outliers.
        """
        scores = self.score_samples(X)
        # A score that equals an infinite threshold lies on it; the difference would be NaN.
        on_threshold = scores == self.offset_
        return np.subtract(scores, self.offset_, out=np.zeros_like(scores), where=~on_threshold)

    def predict(self, X: Any) -> np.ndarray:
        """Tell inliers from outliers.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,), int
            +1 for inliers, -1 for outliers (where ``decision_function`` is negative).
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)


def contamination_offset(scores: np.ndarray, contamination: float | str) -> float:
    """Choose the threshold below which a given share of the training scores lies.

    Raises
    ------
    ValueError
        If no score is finite.
    """
    share = _AUTO_CONTAMINATION if contamination == "auto" else float(contamination)
    finite = scores[np.isfinite(scores)]
    if len(finite) == 0:
        raise ValueError(
            f"none of the {len(scores)} training samples has a finite score: the model does not "
            "fit these data"
        )
    if len(finite) == len(scores):
        return float(np.quantile(scores, share))
    # Between an infinite score and its neighbour there is nothing to interpolate, and a score of
    # -inf lies below the threshold however many there are.
    return max(float(np.quantile(scores, share, method="higher")), float(finite.min()))

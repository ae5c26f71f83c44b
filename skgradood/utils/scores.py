"""One way to ask any estimator how normal it finds its input."""

from __future__ import annotations

from typing import Any

import numpy as np

_METHODS = ("score_samples", "decision_function")


def normality_scores(estimator: Any, X: Any) -> np.ndarray:
    """Score samples with whatever method a fitted estimator has for it.

    Parameters
    ----------
    estimator : estimator
        A fitted detector, density estimator or Pipeline. ``score_samples`` is used where it
        exists, ``decision_function`` otherwise.
    X : array-like
        What the estimator takes.

    Returns
    -------
    ndarray of shape (n,), float64
        Higher is more normal. NaN becomes -inf, a certain outlier.

    Raises
    ------
    TypeError
        If the estimator has neither method.
    ValueError
        If it returns anything but one value a sample.
    """
    for method in _METHODS:
        if hasattr(estimator, method):
            scores = np.asarray(getattr(estimator, method)(X), dtype=np.float64)
            break
    else:
        raise TypeError(
            f"{type(estimator).__name__} has none of the methods {', '.join(_METHODS)}; "
            "pass a detector, a density estimator, or a Pipeline that ends in one."
        )
    if scores.ndim != 1:
        raise ValueError(
            f"{type(estimator).__name__}.{method} must return one value a sample, shape (n,); "
            f"it returned shape {scores.shape}."
        )
    return np.where(np.isnan(scores), -np.inf, scores)

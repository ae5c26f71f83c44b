"""What counts as abnormal: statistics over marginals and their dependence, in nats."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_ndtr


def _density(columns: np.ndarray, marginal: Any, dependence: Any) -> np.ndarray:
    """Compute the joint log density."""
    copula = dependence.log_copula(marginal.normal_score(columns))
    return marginal.log_pdf(columns).sum(axis=1) + copula


def _two_sided(columns: np.ndarray, marginal: Any, dependence: Any) -> np.ndarray:
    """Compute the log p-value against deviations of either sign."""
    return dependence.two_sided_log_p(marginal.normal_score(columns))


def _upper(columns: np.ndarray, marginal: Any, dependence: Any) -> np.ndarray:
    """Compute the log p-value against large values."""
    return log_ndtr(-_stouffer(columns, marginal, dependence))


def _lower(columns: np.ndarray, marginal: Any, dependence: Any) -> np.ndarray:
    """Compute the log p-value against small values."""
    return log_ndtr(_stouffer(columns, marginal, dependence))


def _stouffer(columns: np.ndarray, marginal: Any, dependence: Any) -> np.ndarray:
    """Compute the sum of the normal scores, in units of its standard deviation."""
    scores = marginal.normal_score(columns)
    return scores.sum(axis=1) / np.sqrt(dependence.sum_variance(scores.shape[1]))


TAILS = {"density": _density, "two-sided": _two_sided, "upper": _upper, "lower": _lower}

"""How the layers depend on each other, given the normal scores of each.

A model of dependence answers for normal scores Z of shape (n, L) whose margins are standard
normal; all its log values are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.special import log_ndtr
from sklearn.covariance import ledoit_wolf_shrinkage, oas

from skgradood.detectors import _gamma

# Shrinkage estimates can be zero (two rows, columns that copy each other); this keeps the
# correlation matrix invertible and is far below the statistical error of any estimate.
_MIN_SHRINKAGE = 1e-6
# A Cholesky factor with a smaller diagonal element has lost all digits of a float64.
_MIN_PIVOT = 1e-7


@dataclass(frozen=True)
class Independent:
    """Layers that do not depend on each other."""

    @classmethod
    def fit(cls, scores: np.ndarray) -> Self:
        """Nothing is estimated."""
        return cls()

    def log_copula(self, scores: np.ndarray) -> np.ndarray:
        """Compute the log density of the copula: zero."""
        return np.zeros(len(scores))

    def sum_variance(self, n_layers: int) -> float:
        """Compute the variance of the sum of the normal scores."""
        return float(n_layers)

    def two_sided_log_p(self, scores: np.ndarray) -> np.ndarray:
        """Combine two-sided p-values, 2 min(p, 1 - p), by Fisher's method."""
        statistic = -(np.log(2) + log_ndtr(-np.abs(scores))).sum(axis=1)
        return _gamma_log_p(float(scores.shape[1]), statistic)


@dataclass(frozen=True)
class GaussianCopula:
    """Normal scores that are jointly normal."""

    correlation: np.ndarray
    correlation_cholesky: np.ndarray
    shrinkage: float

    @classmethod
    def fit(cls, scores: np.ndarray, *, covariance: str) -> Self:
        """Estimate the correlation matrix by one of the keys of ``SHRINKAGES``."""
        scores = scores - scores.mean(axis=0)
        scores /= scores.std(axis=0)
        shrinkage = SHRINKAGES[covariance](scores)
        correlation = (1 - shrinkage) * (scores.T @ scores) / len(scores)
        np.fill_diagonal(correlation, 1.0)
        return cls(correlation, _cholesky(correlation, len(scores)), shrinkage)

    def log_copula(self, scores: np.ndarray) -> np.ndarray:
        """Compute the log density of the copula: normal joint density over normal margins."""
        half_log_det = np.log(np.diag(self.correlation_cholesky)).sum()
        return 0.5 * ((scores**2).sum(axis=1) - self._mahalanobis(scores)) - half_log_det

    def sum_variance(self, n_layers: int) -> float:
        """Compute the variance of the sum of the normal scores."""
        return float(self.correlation.sum())

    def two_sided_log_p(self, scores: np.ndarray) -> np.ndarray:
        """Compare the Mahalanobis distance with its chi-square distribution."""
        return _gamma_log_p(0.5 * scores.shape[1], 0.5 * self._mahalanobis(scores))

    def _mahalanobis(self, scores: np.ndarray) -> np.ndarray:
        whitened = solve_triangular(self.correlation_cholesky, scores.T, lower=True)
        return (whitened**2).sum(axis=0)


def _gamma_log_p(shape: float, statistic: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a statistic of 0 has log p = 0
        return _gamma.log_sf(np.array(shape), np.log(statistic))


def _cholesky(correlation: np.ndarray, n_samples: int) -> np.ndarray:
    try:
        factor = cholesky(correlation, lower=True)
    except LinAlgError:
        factor = np.zeros((1, 1))
    if np.diag(factor).min() < _MIN_PIVOT:
        raise ValueError(
            f"the empirical covariance of {len(correlation)} layers is singular on {n_samples} "
            'rows. Use covariance="ledoit_wolf" or "oas", fit on more rows, or set '
            'dependence="independent".'
        )
    return factor


def _ledoit_wolf(scores: np.ndarray) -> float:
    return max(float(ledoit_wolf_shrinkage(scores, assume_centered=True)), _MIN_SHRINKAGE)


def _oas(scores: np.ndarray) -> float:
    return max(float(oas(scores, assume_centered=True)[1]), _MIN_SHRINKAGE)


def _no_shrinkage(scores: np.ndarray) -> float:
    return 0.0


SHRINKAGES = {"ledoit_wolf": _ledoit_wolf, "oas": _oas, "empirical": _no_shrinkage}

DEPENDENCES: dict[str, Any] = {"gaussian": GaussianCopula, "independent": Independent}

"""Distributions of one layer's statistic: fitted to columns, evaluated on columns.

Each is a small dataclass of arrays, one value a column. All arrays of samples have shape
(n, L); densities are with respect to the column as it is given, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import ndtri_exp, psi

from skgradood.detectors._gamma import inverse_trigamma, log_cdf, log_kernel, log_sf

# Normal scores end here, so that sums of their squares stay finite.
_MAX_SCORE = 1e100
_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class NormalMarginal:
    """A normal distribution of the columns as they are."""

    location: np.ndarray
    scale: np.ndarray

    non_negative: ClassVar[bool] = False

    @classmethod
    def fit(cls, columns: np.ndarray) -> Self:
        """Estimate mean and standard deviation (maximum likelihood)."""
        unit = np.abs(columns).max(axis=0)  # squares of large values would overflow
        scaled = columns / unit
        return cls(location=unit * scaled.mean(axis=0), scale=unit * scaled.std(axis=0))

    @staticmethod
    def relative_spread(columns: np.ndarray) -> np.ndarray:
        """Compare each column's standard deviation with its largest magnitude."""
        # Not below the smallest normal number: what varies only there has lost its digits.
        largest = np.maximum(np.abs(columns).max(axis=0), np.finfo(np.float64).tiny)
        return (columns / largest).std(axis=0)

    def normal_score(self, columns: np.ndarray) -> np.ndarray:
        """Map values to the standard normal values that have the same tail probability."""
        with np.errstate(over="ignore"):  # clipped
            scores = (columns - self.location) / self.scale
        return np.clip(scores, -_MAX_SCORE, _MAX_SCORE)

    def log_pdf(self, columns: np.ndarray) -> np.ndarray:
        """Compute the log density of each value."""
        scores = self.normal_score(columns)
        return -0.5 * scores**2 - np.log(self.scale) - _LOG_SQRT_2PI


class LognormalMarginal(NormalMarginal):
    """A normal distribution of the logarithms; the published choice for squared norms."""

    non_negative = True

    @classmethod
    def fit(cls, columns: np.ndarray) -> Self:
        """Estimate mean and standard deviation of the logarithms (maximum likelihood)."""
        return super().fit(np.log(columns))

    @staticmethod
    def relative_spread(columns: np.ndarray) -> np.ndarray:
        """Compute the standard deviation of each column's logarithm."""
        return np.log(columns).std(axis=0)

    def normal_score(self, columns: np.ndarray) -> np.ndarray:
        """Map values to the standard normal values that have the same tail probability."""
        return super().normal_score(np.log(columns))

    def log_pdf(self, columns: np.ndarray) -> np.ndarray:
        """Compute the log density of each value."""
        return super().log_pdf(columns) - np.log(columns)


@dataclass(frozen=True)
class Chi2Marginal:
    """A scaled chi-square, f ~ s chi2_k: the sum of squares of k normal scores of variance s.

    k is an effective dimension, estimated like s, and not a number of parameters.
    """

    scale: np.ndarray
    df: np.ndarray

    non_negative: ClassVar[bool] = True

    @classmethod
    def fit(cls, columns: np.ndarray, *, method: str) -> Self:
        """Estimate s and k by one of the keys of ``CHI2_FITS``."""
        return cls(*CHI2_FITS[method](columns))

    relative_spread = staticmethod(LognormalMarginal.relative_spread)

    def normal_score(self, columns: np.ndarray) -> np.ndarray:
        """Map values to the standard normal values that have the same tail probability."""
        below = log_cdf(self.df / 2, self._log_gamma(columns))
        above = log_sf(self.df / 2, self._log_gamma(columns))
        # From the smaller of the two tails, whose logarithm is the accurate one.
        score = np.where(below < above, 1, -1) * ndtri_exp(np.minimum(below, above))
        return np.clip(score, -_MAX_SCORE, _MAX_SCORE)

    def log_pdf(self, columns: np.ndarray) -> np.ndarray:
        """Compute the log density of each value."""
        return log_kernel(self.df / 2, self._log_gamma(columns)) - np.log(columns)

    def _log_gamma(self, columns: np.ndarray) -> np.ndarray:
        """Compute log(f / 2s), the logarithm of a Gamma(k/2, 1) variable."""
        return np.log(columns) - np.log(2) - np.log(self.scale)


def _chi2_from_moments(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match mean and variance: s = Var f / 2 E f and k = 2 (E f)^2 / Var f."""
    unit = columns.max(axis=0)  # squares of large values would overflow
    mean, variance = (columns / unit).mean(axis=0), (columns / unit).var(axis=0)
    return unit * (variance / (2 * mean)), 2 * mean**2 / variance


def _chi2_from_logs(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match mean and variance of log f: psi_1(k/2) = Var log f, psi(k/2) + log 2s = E log f."""
    logs = np.log(columns)
    half_df = inverse_trigamma(logs.var(axis=0))
    log_scale = logs.mean(axis=0) - psi(half_df) - np.log(2)
    return np.exp(np.clip(log_scale, -700, 700)), 2 * half_df  # within the range of float64


CHI2_FITS = {"moments": _chi2_from_moments, "log": _chi2_from_logs}

MARGINALS: dict[str, Any] = {
    "normal": NormalMarginal,
    "lognormal": LognormalMarginal,
    "chi2": Chi2Marginal,
}

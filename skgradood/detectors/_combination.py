"""Combining p-values of one row into one, in logarithms that do not underflow.

All functions take log p-values of shape (n, K), a column a test, and return log p-values of shape
(n,). Lowering any p-value never raises the result, and the order of the columns does not matter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from skgradood.detectors import _gamma

# Powers of e smaller than this leave the range of a float64 when they are inverted.
_FAR = -600.0
# Below this, p^2 is lost in the rounding of 1 - p.
_LOG_SMALL = -30.0
# Above this p-value, cot(pi p) is held constant.
_CAUCHY_CAP = 0.99
# The variance of a sum of exponential variables, relative to that of independent ones.
_LEAST_VARIANCE_RATIO = 1e-3


def fisher(log_p: np.ndarray) -> np.ndarray:
    """Fisher's method: -2 sum log p is chi-square with 2K degrees of freedom.

    Exact for independent tests.
    """
    return brown(log_p, np.eye(log_p.shape[1]))


def brown(log_p: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Brown's method: Fisher's with the dependence of the tests taken into account.

    X = -2 sum log p has the mean E = 2K and the variance V = 4 sum_ij R_ij, R the correlation of
    the log p-values; X is compared with c chi2_2f, where c = V / 2E and f = E^2 / V [1]_ [2]_.

    Parameters
    ----------
    log_p : ndarray of shape (n, K)
        Log p-values.
    correlation : ndarray of shape (K, K)
        Of the log p-values of inliers.

    References
    ----------
    .. [1] M. B. Brown, "A method for combining non-independent, one-sided tests of significance",
       Biometrics, 1975.
    .. [2] W. Poole, D. L. Gibbs, I. Shmulevich, B. Bernard, T. A. Knijnenburg, "Combining
       dependent p-values with an empirical extension of Brown's method", Bioinformatics, 2016.
    """
    n_tests = log_p.shape[1]
    ratio = max(float(correlation.sum()) / n_tests, _LEAST_VARIANCE_RATIO)
    with np.errstate(divide="ignore"):  # where all p-values are one
        log_statistic = np.log(-log_p.sum(axis=1)) - np.log(ratio)
    combined = _gamma.log_sf(np.array(n_tests / ratio), log_statistic)
    return _certain(combined, log_p)


def cauchy(log_p: np.ndarray) -> np.ndarray:
    """The Cauchy combination: the mean of cot(pi p) is nearly a Cauchy variable.

    p = 1/2 - arctan(T) / pi, T = (1/K) sum cot(pi p). For small p it holds whatever the
    dependence of the tests [1]_. A p-value above 0.99 counts as 0.99: one at exactly 1 would
    outweigh any evidence of the others [2]_.

    References
    ----------
    .. [1] Y. Liu, J. Xie, "Cauchy combination test: a powerful test with analytic p-value
       calculation under arbitrary dependency structures", Journal of the American Statistical
       Association, 2020.
    .. [2] Y. Fang, C. Chang, Y. Park, G. C. Tseng, "Heavy-tailed distribution for combining
       dependent p-values with asymptotic robustness", Statistica Sinica, 2023.
    """
    log_p = np.minimum(log_p, np.log(_CAUCHY_CAP))
    least = log_p.min(axis=1)
    near = least > _FAR
    combined = np.empty(len(log_p))
    mean = (1 / np.tan(np.pi * np.exp(log_p[near]))).mean(axis=1)
    combined[near] = np.log(np.arctan2(1, mean) / np.pi)
    # cot(pi p) = 1 / (pi p) for the smallest, beside which those of 1e-9 and more vanish.
    combined[~near] = np.log(log_p.shape[1]) - logsumexp(-log_p[~near], axis=1)
    return _certain(combined, log_p)


def smallest(log_p: np.ndarray) -> np.ndarray:
    """The smallest p-value, corrected for their number: 1 - (1 - min p)^K (Sidak).

    Exact for independent tests, conservative for positively dependent ones.
    """
    n_tests, least = log_p.shape[1], log_p.min(axis=1)
    # To second order in p, which itself may underflow.
    p = np.exp(np.minimum(least, _LOG_SMALL))
    expansion = np.log(n_tests) + least + np.log1p(-0.5 * (n_tests - 1) * p)
    return np.where(
        least < _LOG_SMALL, expansion, _log_complement(n_tests * _log_complement(least))
    )


COMBINATIONS: dict[str, Callable[..., np.ndarray]] = {
    "fisher": fisher,
    "brown": brown,
    "cauchy": cauchy,
    "max": smallest,
}


def _log_complement(log_p: np.ndarray) -> np.ndarray:
    """Compute log(1 - p)."""
    with np.errstate(divide="ignore"):  # where p is one
        return np.where(
            log_p < -np.log(2),
            np.log1p(-np.exp(np.minimum(log_p, -np.log(2)))),
            np.log(-np.expm1(log_p)),
        )


def _certain(combined: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """A p-value of zero makes the combined one zero, whatever the others."""
    return np.where(np.isneginf(log_p).any(axis=1), -np.inf, combined)

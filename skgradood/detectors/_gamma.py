"""Gamma distributions far into both tails, in logarithms.

SciPy's ``gamma.logcdf`` and ``logsf`` are logarithms of numbers that underflow (-inf beyond
about 750 nats). Detectors compare inputs that lie much further out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammainc, gammaincc, gammaln, polygamma

# Further out SciPy's lower tail is wrong for large shapes (by up to a factor of 100), and both
# underflow in the end.
_SAFE_TAIL = 1e-5
# Its exponential is 1e200, the largest gamma variable told apart from larger ones.
_MAX_LOG = 200 * np.log(10)
_LARGE_SHAPE = 1e3
_MAX_TERMS = 1000


def log_kernel(shape: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """Compute log(x^a e^-x / Gamma(a)), the log density of log x (broadcasting, in nats)."""
    log_ratio = np.minimum(log_x, _MAX_LOG) - np.log(shape)
    return -shape * (np.expm1(log_ratio) - log_ratio) - _stirling_remainder(shape)


def log_cdf(shape: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """Compute the log probability that a Gamma(a, 1) variable is below x (broadcasting)."""
    shape, log_x = np.broadcast_arrays(shape, np.minimum(log_x, _MAX_LOG))
    x = np.exp(log_x)
    lower, upper = gammainc(shape, x), gammaincc(shape, x)
    result = _accurate_log(lower, upper)
    far = lower < _SAFE_TAIL
    a, x = shape[far], x[far]
    # P(a, x) = x^a e^-x / Gamma(a) / (a - x + x / (a + 1 - x + 2x / (a + 2 - x + ...)))
    fraction = _continued_fraction(lambda n: n * x, lambda n: a + n - x)
    result[far] = log_kernel(a, log_x[far]) - np.log(fraction)
    return result


def log_sf(shape: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """Compute the log probability that a Gamma(a, 1) variable is above x (broadcasting)."""
    shape, log_x = np.broadcast_arrays(shape, np.minimum(log_x, _MAX_LOG))
    x = np.exp(log_x)
    lower, upper = gammainc(shape, x), gammaincc(shape, x)
    result = _accurate_log(upper, lower)
    far = upper < _SAFE_TAIL
    a, x = shape[far], x[far]
    # Legendre: Q(a, x) = x^a e^-x / Gamma(a) / (x + 1 - a - 1(1 - a) / (x + 3 - a - ...))
    fraction = _continued_fraction(lambda n: n * (a - n), lambda n: x + 2 * n + 1 - a)
    result[far] = log_kernel(a, log_x[far]) - np.log(fraction)
    return result


def inverse_trigamma(value: np.ndarray) -> np.ndarray:
    """Solve polygamma(1, y) = value for y > 0, by Newton's method on 1/polygamma(1, y)."""
    # 1/polygamma(1, y) is convex and nearly linear in y, and this start lies on its safe side.
    y = np.where(value > 1e7, 1 / np.sqrt(value), 0.5 + 1 / value)
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / value) / polygamma(2, y)
        y = y + step
        if np.all(np.abs(step) <= 1e-14 * y):
            break
    return y


def _accurate_log(tail: np.ndarray, complement: np.ndarray) -> np.ndarray:
    """Compute log(tail) from whichever of tail and 1 - tail is the smaller."""
    return np.where(
        tail < 0.5,
        np.log(np.maximum(tail, _SAFE_TAIL)),
        np.log1p(-np.minimum(complement, 0.5)),
    )


def _stirling_remainder(shape: np.ndarray) -> np.ndarray:
    """Compute log Gamma(a) - (a log a - a) without cancellation for large a."""
    series = 0.5 * np.log(2 * np.pi / shape) + 1 / (12 * shape)
    return np.where(shape > _LARGE_SHAPE, series, gammaln(shape) - shape * np.log(shape) + shape)


def _continued_fraction(
    numerator: Callable[[int], np.ndarray], denominator: Callable[[int], np.ndarray]
) -> np.ndarray:
    """Evaluate b(0) + a(1) / (b(1) + a(2) / (b(2) + ...)) by the modified Lentz method."""
    value = denominator(0)
    c, d = value, np.zeros_like(value)
    for n in range(1, _MAX_TERMS):
        a, b = numerator(n), denominator(n)
        c = b + a / c
        d = 1 / (b + a * d)
        value = value * (c * d)
        if np.all(np.abs(c * d - 1) < 1e-15):
            break
    return value

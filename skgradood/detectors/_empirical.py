"""The distribution of reference values, with tails that go on beyond the last of them."""

from __future__ import annotations

import numpy as np

# The outermost values of either side that set how fast its tail falls.
_TAIL_SHARE = 0.1
_MIN_TAIL = 2
_LEAST_SPREAD = 1e-6


def two_sided_log_p(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Log of the two-sided p-value of values under the distribution of a reference.

    p = min(1, 2 min(F, 1 - F)), with F the empirical distribution function: the i-th of n
    reference values has F = (i - 1/2) / n, values between two of them are interpolated, and
    beyond the outermost the tail is exponential, with the mean excess of the outer tenth as its
    scale. So p is continuous and falls strictly, however far a value lies out. Within the
    reference nothing is smoothed: log-likelihoods are often bounded above, and a fitted tail
    would give the values at such an end p-values that are far too large.

    Parameters
    ----------
    values : ndarray of shape (n,)
        -inf is allowed and has p = 0.
    reference : ndarray of shape (m,)
        Finite, ascending.

    Returns
    -------
    ndarray of shape (n,), float64
        At most 0.
    """
    lower = _log_lower_tail(values, reference)
    upper = _log_lower_tail(-values, -reference[::-1])
    return np.minimum(0.0, np.log(2) + np.minimum(lower, upper))


def _log_lower_tail(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    n = len(reference)
    heights = (np.arange(n) + 0.5) / n
    with np.errstate(divide="ignore"):
        inside = np.log(np.interp(values, reference, heights))
    n_tail = min(n, max(_MIN_TAIL, int(np.ceil(_TAIL_SHARE * n))))
    tail = reference[:n_tail]
    spread = float(np.mean(tail[-1] - tail))
    # Equal values have no spread: one is given to them, so that other values can be told apart.
    scale = max(spread, _LEAST_SPREAD * abs(reference[0]), np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        beyond = np.log(heights[0]) + (values - reference[0]) / scale
    return np.where(values < reference[0], beyond, inside)

"""From values to p-values, by the values of inliers.

Both sides of one distribution (`two_sided_log_p`), or the lower one alone (`ScoreReference`). In
either the k-th of n reference values has (k - 1/2) / n of them below it, what lies between two of
them is interpolated, and the tails have no end, so that outliers rank by how far they lie. Scores
of detectors have heavy tails, which a fitted distribution describes better than a few values do.
Log-likelihoods often end abruptly, where a fitted tail would be wrong: they keep their own
distribution as far as it goes.
"""

from __future__ import annotations

import numpy as np

_TINY = np.finfo(np.float64).tiny
# Distances into the tail, in units of its scale, end here, so that sums of them stay finite.
_MAX_DISTANCE = 1e100
# Equal reference values have no width; they are given this one, relative to their value.
_LEAST_WIDTH = 1e-6
# The shape of a tail is exponential unless more excesses than this few say otherwise.
_PRIOR_EXCESSES = 10
# The outermost values of either side that set how fast an exponential tail falls.
_TAIL_SHARE = 0.1
_MIN_TAIL = 2


class ScoreReference:
    """One-sided p-values of scores, p = P(S <= s) over inliers, without a smallest one.

    Between the reference scores log p is interpolated linearly, from p = (rank - 1/2) / n. Beyond
    the threshold above which a share of about min(0.2, 3 / sqrt(n)) of them lies (towards small
    scores), a generalised Pareto distribution goes on:

        log p(s) = log p(t) - log(1 + xi (t - s) / sigma) / xi,

    fitted by L-moments [1]_, with xi >= 0 (exponential at xi = 0) whatever the sample says: a tail
    with an end would give the same p = 0 to all that lies beyond it. p falls strictly from the
    largest reference score on, without end, and continuously.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Finite scores of inliers, higher for more normal ones.

    References
    ----------
    .. [1] J. R. M. Hosking, J. R. Wallis, "Parameter and quantile estimation for the generalized
       Pareto distribution", Technometrics, 1987.
    """

    def __init__(self, scores: np.ndarray) -> None:
        distances = np.sort(-scores)
        n = len(distances)
        self._knots, first, counts = np.unique(distances, return_index=True, return_counts=True)
        p = (n - first - 0.5 * counts) / n
        self._log_p = np.log(p)
        self._width = _width(distances)
        n_tail = int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))
        self._threshold = distances[max(n - n_tail - 1, 0)]
        self._log_p_threshold = np.interp(self._threshold, self._knots, self._log_p)
        excesses = distances[distances > self._threshold] - self._threshold
        self._scale, self._shape = _pareto_tail(excesses, default=self._width)
        self._above_largest = 1 - p[0]

    def log_p(self, scores: np.ndarray) -> np.ndarray:
        """Compute log p-values, (n,): -inf for scores of -inf and NaN, else finite."""
        distances = np.where(np.isnan(scores), np.inf, -scores)
        result = self._interpolated(distances)
        tail = distances > self._threshold
        result[tail] = self._log_p_threshold - self._tail_nats(distances[tail])
        normal = distances < self._knots[0]
        with np.errstate(over="ignore"):  # p = 1
            nearness = (distances[normal] - self._knots[0]) / self._width
        result[normal] = np.log1p(-self._above_largest * np.exp(nearness))
        result[np.isposinf(distances)] = -np.inf
        return result

    def _interpolated(self, distances: np.ndarray) -> np.ndarray:
        right = np.searchsorted(self._knots, distances).clip(max=len(self._knots) - 1)
        left = (right - 1).clip(min=0)
        # Just before a knot rounding goes beyond its value.
        line = np.interp(distances, self._knots, self._log_p)
        return np.clip(line, self._log_p[right], self._log_p[left])

    def _tail_nats(self, distances: np.ndarray) -> np.ndarray:
        """How far log p has fallen since the threshold."""
        with np.errstate(over="ignore"):  # clipped
            excess = (distances - self._threshold) / self._scale
        excess = np.minimum(excess, _MAX_DISTANCE)
        return np.log1p(self._shape * excess) / self._shape if self._shape else excess


def _width(distances: np.ndarray) -> float:
    """How far the median lies from the most normal score; never 0."""
    spread = np.median(distances) - distances[0] or distances[-1] - distances[0]
    return float(spread or max(_LEAST_WIDTH * abs(distances[0]), _TINY))


def _pareto_tail(excesses: np.ndarray, default: float) -> tuple[float, float]:
    """Fit scale and shape of a generalised Pareto distribution to ascending excesses.

    Its first two L-moments are l1 = sigma / (1 - xi) and l2 = l1 / (2 - xi).
    """
    n = len(excesses)
    if n == 0:
        return default, 0.0
    unit = excesses[-1]
    weights = np.arange(n) / max(n - 1, 1)
    l1 = (excesses / unit).mean()
    l2 = 2 * (weights * (excesses / unit)).mean() - l1
    shape = n / (n + _PRIOR_EXCESSES) * max(2 - l1 / l2, 0.0) if l2 > 0 else 0.0
    return float(unit * l1 * (1 - shape)), shape


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
    scale = max(spread, _LEAST_WIDTH * abs(reference[0]), _TINY)
    with np.errstate(over="ignore"):
        beyond = np.log(heights[0]) + (values - reference[0]) / scale
    return np.where(values < reference[0], beyond, inside)

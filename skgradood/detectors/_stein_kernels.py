"""Stein kernels: what a kernel on samples becomes when a model's density is known.

With the input score s(x) = ∂ log p(x) / ∂x, a kernel k has the Stein kernel

    u(x, y) = s(x)ᵀs(y) k + s(x)ᵀ ∂k/∂y + s(y)ᵀ ∂k/∂x + tr ∂²k/∂x∂y,

whose expectation over x is 0 under p, whatever y is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist, pdist

Derivatives = tuple[np.ndarray, np.ndarray, np.ndarray]

# Samples that the median distance is taken over; all pairs of them are.
_N_FOR_BANDWIDTH = 1000


def _gaussian(t: np.ndarray) -> Derivatives:
    value = np.exp(-t / 2)
    return value, -value / 2, value / 4


def _inverse_multiquadric(t: np.ndarray) -> Derivatives:
    base = 1 + t
    return base**-0.5, -0.5 * base**-1.5, 0.75 * base**-2.5


# κ, κ' and κ'' of kernels k(x, y) = κ(‖x - y‖² / h²).
RADIAL: dict[str, Callable[[np.ndarray], Derivatives]] = {
    "imq": _inverse_multiquadric,
    "rbf": _gaussian,
}


def stein_matrix(
    kernel: str, samples: np.ndarray, input_scores: np.ndarray, bandwidth: float
) -> np.ndarray:
    """Stein kernel between all samples of a group.

    With t = ‖x - y‖² / h², ∂k/∂x = -∂k/∂y = 2 κ' (x - y) / h² and, in D dimensions,
    tr ∂²k/∂x∂y = -(2 / h²) (D κ' + 2 t κ'').

    Parameters
    ----------
    kernel : str
        A key of `RADIAL`.
    samples, input_scores : ndarray of shape (B, D)
        x and ∂ log p(x) / ∂x.
    bandwidth : float
        h, in the unit of the samples.

    Returns
    -------
    ndarray of shape (B, B)
    """
    t = cdist(samples, samples, "sqeuclidean") / bandwidth**2
    value, first, second = RADIAL[kernel](t)
    centred = samples - samples.mean(axis=0)
    products = input_scores @ centred.T  # s(x_i)ᵀ x_j
    own = np.diag(products)
    # (s(y) - s(x))ᵀ (x - y)
    slopes = products + products.T - own[:, None] - own[None, :]
    trace = -(2 / bandwidth**2) * (samples.shape[1] * first + 2 * t * second)
    return value * (input_scores @ input_scores.T) + 2 * first / bandwidth**2 * slopes + trace


def median_distance(samples: np.ndarray, seed: int) -> float:
    """Median distance between samples (n, D), at most 1000 of them drawn at random; never 0."""
    chosen = samples
    if len(samples) > _N_FOR_BANDWIDTH:
        chosen = np.random.default_rng(seed).choice(samples, _N_FOR_BANDWIDTH, replace=False)
    distances = pdist(chosen)
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0

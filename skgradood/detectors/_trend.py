"""What one quantity is on average, at a given value of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DEGREE = 2


@dataclass
class Trend:
    """A parabola through training rows; beyond their range it stays what it is at the end.

    Attributes
    ----------
    coefficients : ndarray of shape (degree + 1,)
        In powers of the covariate, with its range mapped to [-1, 1].
    covariate_range : ndarray of shape (2,)
        Least and largest covariate of the training rows.
    """

    coefficients: np.ndarray
    covariate_range: np.ndarray

    @classmethod
    def fit(cls, covariate: np.ndarray, values: np.ndarray) -> Trend:
        """Least squares, of a lower degree where the covariate has few values."""
        covariate_range = np.array([covariate.min(), covariate.max()])
        degree = min(_DEGREE, len(np.unique(covariate)) - 1)
        position = _position(covariate, covariate_range)
        return cls(np.polynomial.polynomial.polyfit(position, values, degree), covariate_range)

    def __call__(self, covariate: np.ndarray) -> np.ndarray:
        """Expected values, (n,)."""
        position = _position(covariate, self.covariate_range)
        return np.polynomial.polynomial.polyval(position, self.coefficients)


def _position(covariate: np.ndarray, covariate_range: np.ndarray) -> np.ndarray:
    """Map the range to [-1, 1], and what lies outside to its ends."""
    low, high = covariate_range
    width = high - low or 1.0
    # Divided before it is doubled: of a range below the normal numbers, 2 / width is infinite.
    return 2 * ((np.clip(covariate, low, high) - low) / width) - 1

"""What one quantity is on average, at a given value of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skgradood.detectors._columns import MIN_SPREAD

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
        """Least squares, of a lower degree where the covariate has few values, or rows are few.

        A trend with as many coefficients as there are different rows would leave nothing over: 3
        of them have a line, and 2 a constant.
        """
        covariate_range = np.array([covariate.min(), covariate.max()])
        position = _position(covariate, covariate_range)
        n_different = _n_different(np.column_stack([position, values]), at_most=_DEGREE + 2)
        degree = max(0, min(_DEGREE, len(np.unique(covariate)) - 1, n_different - 2))
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


def _n_different(rows: np.ndarray, *, at_most: int) -> int:
    """Count rows that differ by more than rounding, which depends on a row's batch."""
    n = 0
    while n < at_most and len(rows):
        rows = rows[(np.abs(rows - rows[0]) > MIN_SPREAD).any(axis=1)]
        n += 1
    return n

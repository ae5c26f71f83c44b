"""What one quantity is on average, at a given value of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial

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
        if degree == 0:
            return cls(np.array([values.mean()]), covariate_range)
        fitted = Polynomial.fit(covariate, values, degree, domain=covariate_range)
        return cls(np.asarray(fitted.coef), covariate_range)

    def __call__(self, covariate: np.ndarray) -> np.ndarray:
        """Expected values, (n,)."""
        low, high = self.covariate_range
        width = high - low or 1.0
        position = 2 * (np.clip(covariate, low, high) - low) / width - 1
        return np.polynomial.polynomial.polyval(position, self.coefficients)

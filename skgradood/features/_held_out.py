"""Two halves of a data set, each measured with what was fitted on the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from skgradood.gradients import LogLikelihood


@dataclass
class Halves:
    """Which rows a statistic was fitted on, by their content.

    A statistic is biased on the rows that it was fitted on. So two are fitted, on disjoint
    halves, and rows of the first are measured with the second; all others with the first.

    Parameters
    ----------
    seed : int
        Another seed divides the rows otherwise.

    Attributes
    ----------
    first, second : ndarray of int64
        Keys of the rows in each half, ascending.
    """

    seed: int
    first: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    second: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def divide(self, X: Tensor, limit: int | None, *, two: bool) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the new rows of X that join the first and the second half.

        The division depends on the rows' contents, not on their order. Equal rows count once.

        Parameters
        ----------
        X : Tensor of shape (n, ...)
            Rows.
        limit : int or None
            Most rows in a half, with those that it has.
        two : bool
            False puts all rows into the first half.
        """
        keys, positions = np.unique(self._keys(X), return_index=True)
        new = ~(np.isin(keys, self.first) | np.isin(keys, self.second))
        keys, positions = keys[new], positions[new]
        step = 2 if two else 1
        first, second = (
            slice(start, None if limit is None else step * max(0, limit - len(half)), step)
            for start, half in enumerate((self.first, self.second))
        )
        if not two:
            second = slice(0, 0)
        self.first = np.sort(np.concatenate([self.first, keys[first]]))
        self.second = np.sort(np.concatenate([self.second, keys[second]]))
        return np.sort(positions[first]), np.sort(positions[second])

    def in_first(self, X: Tensor) -> np.ndarray:
        """Which rows of X belong to the first half, (n,) bool."""
        if len(self.second) == 0:  # there is no other half to measure them with
            return np.zeros(len(X), dtype=bool)
        return np.isin(self._keys(X), self.first)

    def _keys(self, X: Tensor) -> np.ndarray:
        seeds = LogLikelihood("log_prob", self.seed).row_seeds(X)
        return np.array(seeds, dtype=np.int64)

"""Two halves of a data set, each measured with what was fitted on the other."""

from __future__ import annotations

from collections.abc import Sequence
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
    grouped : bool, default=False
        Whether rows are groups of samples, (n, B, ...), which are the same in any order of their
        samples. Old files hold keys of groups as rows, in order, under False.

    Attributes
    ----------
    first, second : ndarray of int64
        Keys of the rows in each half, ascending, without repeats.
    """

    seed: int
    first: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    second: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    grouped: bool = False

    def divide(self, X: Tensor, rooms: Sequence[int | None]) -> list[np.ndarray]:
        """Positions of the rows of X that join the first half, and the second.

        The division depends on the rows' contents, not on their order. Equal rows go together,
        and to the half that has their like.

        Parameters
        ----------
        X : Tensor of shape (n, ...)
            Rows.
        rooms : sequence of (int or None)
            How many rows each half in use still takes; None for any number.

        Returns
        -------
        list of ndarray of int64
            Positions for each half in use, ascending.
        """
        keys = self._keys(X)
        order = np.argsort(keys, kind="stable")
        halves = [self.first, self.second][: len(rooms)]
        new = np.setdiff1d(keys, np.concatenate(halves))
        fewest = int(np.argmin([len(half) for half in halves]))
        joining = []
        for i, (half, room) in enumerate(zip(halves, rooms, strict=True)):
            own = np.concatenate([half, new[(i - fewest) % len(rooms) :: len(rooms)]])
            joining.append(np.sort(order[np.isin(keys[order], own)][:room]))
            halves[i] = np.union1d(half, keys[joining[i]])
        self.first, self.second = halves if len(halves) == 2 else (halves[0], self.second)
        return joining

    def in_first(self, X: Tensor) -> np.ndarray:
        """Which rows of X belong to the first half, (n,) bool."""
        if len(self.second) == 0:  # there is no other half to measure them with
            return np.zeros(len(X), dtype=bool)
        return np.isin(self._keys(X), self.first)

    def _keys(self, X: Tensor) -> np.ndarray:
        seeds_of = LogLikelihood("log_prob", self.seed).row_seeds
        if not self.grouped:
            return np.array(seeds_of(X), dtype=np.int64)
        of_samples = np.array(seeds_of(X.flatten(0, 1)), dtype=np.uint64).reshape(X.shape[:2])
        wrapped = of_samples.sum(axis=1) & np.uint64(np.iinfo(np.int64).max)
        return wrapped.astype(np.int64)

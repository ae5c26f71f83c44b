"""Clones and copies of estimators among whose parameters are modules."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from skgradood.gradients.copying import CopyingValues


class ClonedWithModules(BaseEstimator):
    """Base of estimators that take modules, which ``sklearn.base.clone`` copies deeply."""

    def __sklearn_clone__(self) -> Any:
        with CopyingValues():
            return super().__sklearn_clone__()

    def __copy__(self) -> Any:
        # Python's own way is through the state for pickling, in which modules are made again.
        twin = type(self).__new__(type(self))
        twin.__dict__.update(vars(self))
        return twin

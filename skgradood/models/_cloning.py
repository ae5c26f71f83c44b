"""Clones of estimators among whose parameters are modules."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from skgradood.gradients.copying import CopyingValues


class ClonedWithModules(BaseEstimator):
    """Base of estimators that take modules, which ``sklearn.base.clone`` copies deeply."""

    def __sklearn_clone__(self) -> Any:
        with CopyingValues():
            return super().__sklearn_clone__()

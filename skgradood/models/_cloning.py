"""Clones of estimators among whose parameters are modules."""

from __future__ import annotations

from typing import Any

from skgradood.gradients.copying import CopyingValues


class ClonedWithModules:
    """Mixin for estimators that take modules, which ``sklearn.base.clone`` copies deeply."""

    def __sklearn_clone__(self) -> Any:
        with CopyingValues():
            return super().__sklearn_clone__()  # type: ignore[misc]

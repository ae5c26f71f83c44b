"""Labels of classes, as a class-conditional module is trained with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, column_or_1d
from torch import nn


def is_class_conditional(module: nn.Module) -> bool:
    """Whether a module is trained with labels: it has ``n_classes``, and a loss for them."""
    has_loss = callable(getattr(module, "labelled_training_loss", None))
    return has_loss and getattr(module, "n_classes", None) is not None


def find_classes(y: Any, module: nn.Module) -> np.ndarray:
    """The different labels in y, sorted: the classes of a module that is trained anew.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        Labels, numbers or strings.
    module : nn.Module
        With ``n_classes``.

    Raises
    ------
    ValueError
        If there are no labels, or not ``n_classes`` different ones.
    """
    classes = np.unique(_checked(y, module))
    if len(classes) != module.n_classes:
        raise ValueError(
            f"{type(module).__name__} has n_classes={module.n_classes}, but y has {len(classes)} "
            f"different labels: {classes[:10].tolist()}. Set module__n_classes={len(classes)}, "
            "or None to train without labels."
        )
    return classes


def encode_labels(y: Any, classes: np.ndarray, n_samples: int, module: nn.Module) -> np.ndarray:
    """Labels as their numbers among the classes.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        Labels.
    classes : ndarray of shape (n_classes,)
        As `find_classes` returns them.
    n_samples : int
        How many there must be.
    module : nn.Module
        Named in errors.

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        If there are no labels, another number of them, or one that is no class.
    """
    labels = _checked(y, module)
    check_consistent_length(labels, np.empty(n_samples))
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"the labels {unknown[:10].tolist()} are none of the classes that the model was first "
            f"fitted with, which are {classes.tolist()}"
        )
    return np.searchsorted(classes, labels)


def _checked(y: Any, module: nn.Module) -> np.ndarray:
    if y is None:
        raise ValueError(
            f"{type(module).__name__} has n_classes={module.n_classes} and is trained with labels: "
            "call fit(X, y). Before it goes into a detector, fit it with labels and put it into "
            "sklearn.frozen.FrozenEstimator; or set module__n_classes=None."
        )
    labels = column_or_1d(y)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y contains NaN or infinity; expected a label for every sample")
    return labels

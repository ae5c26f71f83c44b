"""The data contract: what a batch of samples and a vector of labels may look like."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import validate_data

_ROW_DTYPES = (np.float32, np.float64, np.uint8)
_LAST_CHANNELS = (1, 3)


def check_samples(
    X: Any, *, input_shape: Sequence[int] | None = None, name: str = "X"
) -> np.ndarray:
    """Bring images or rows into the one layout that models and engines use.

    Parameters
    ----------
    X : array-like, torch tensor, DataFrame or list of arrays
        Rows ``(n, d)``; images ``(n, H, W)``, ``(n, C, H, W)`` or ``(n, H, W, C)`` with C
        in {1, 3}. Where both readings of four dimensions are possible, channels come first.
    input_shape : sequence of int, optional
        The shape of one sample, ``(C, H, W)`` or ``(d,)``. Flat rows are reshaped to it, and
        anything else that does not fit it is refused.
    name : str, default="X"
        What error messages call the argument.

    Returns
    -------
    ndarray of shape (n, d) or (n, C, H, W)
        uint8, float32 and float64 keep their dtype; other real numbers become float64.

    Raises
    ------
    ValueError
        For empty, ragged, sparse or complex input, text, a wrong number of dimensions or shape,
        or values that are not finite (the first offending row is named).
    TypeError
        If an array of objects holds something that is no number.
    """
    array = _as_numeric_array(X, name)
    if array.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} has shape {array.shape}. Expected 2D array of rows (n, d), or images "
            "(n, H, W), (n, C, H, W) or (n, H, W, C); got "
            f"{array.ndim}D array instead. Reshape your data: array.reshape(1, -1) if it "
            "is a single sample, array.reshape(-1, 1) if it has a single feature."
        )
    if array.shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={array.shape}) while a minimum of 1 is required "
            f"in {name}."
        )
    if 0 in array.shape[1:]:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is "
            f"required in {name}."
        )
    _refuse_non_finite(array, name)
    if array.ndim == 2:
        return _fit_rows(array, input_shape, name)
    return _fit_images(array, input_shape, name)


def _as_numeric_array(X: Any, name: str) -> np.ndarray:
    if sp.issparse(X):
        raise ValueError(
            f"Sparse data was passed for {name}, but dense data is required. "
            "Use '.toarray()' to convert to a dense numpy array."
        )
    if hasattr(X, "detach") and hasattr(X, "cpu"):  # a torch tensor, without importing torch
        X = X.detach().cpu()
        try:
            X = X.numpy()
        except TypeError:  # NumPy has no bfloat16
            X = X.double().numpy()
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"{name} is ragged: every sample must have the same shape ({error})"
        ) from error
    if np.iscomplexobj(array):
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}")
    if array.dtype in _ROW_DTYPES:
        return array
    if array.dtype.kind not in "biufO":
        raise ValueError(f"{name} must hold real numbers; got dtype {array.dtype}")
    if array.dtype.kind == "O" and "pandas" in sys.modules:  # its missing value is no number
        array = np.where(sys.modules["pandas"].isna(array), np.nan, array)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        # scikit-learn tells objects that are no numbers (TypeError) from text that is none.
        raise type(error)(
            f"{name} must hold real numbers and samples of one shape; "
            f"got dtype {array.dtype}: {error}"
        ) from error


def _refuse_non_finite(array: np.ndarray, name: str) -> None:
    if array.dtype == np.uint8:
        return
    finite_rows = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if not finite_rows.all():
        row = int(np.argmin(finite_rows))
        kind = "NaN" if np.isnan(array[row]).any() else "infinity"
        raise ValueError(
            f"Input {name} contains {kind}: row {row} is the first of "
            f"{int((~finite_rows).sum())} rows with NaN or inf values."
        )


def _fit_rows(array: np.ndarray, input_shape: Sequence[int] | None, name: str) -> np.ndarray:
    if input_shape is None:
        return array
    size = int(np.prod(input_shape))
    if array.shape[1] != size:
        raise ValueError(
            f"{name} has {array.shape[1]} features, but a sample of shape {tuple(input_shape)} "
            f"is expecting {size} features as input."
        )
    return array.reshape(len(array), *input_shape)


def _fit_images(array: np.ndarray, input_shape: Sequence[int] | None, name: str) -> np.ndarray:
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] not in _LAST_CHANNELS and array.shape[3] in _LAST_CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    if input_shape is not None and array.shape[1:] != tuple(input_shape):
        raise ValueError(
            f"{name} holds samples of shape {array.shape[1:]} (channels first), but samples of "
            f"shape {tuple(input_shape)} were expected."
        )
    return np.ascontiguousarray(array)


def check_and_remember_samples(
    estimator: Any, X: Any, *, reset: bool, input_shape: Sequence[int] | None = None
) -> np.ndarray:
    """Check samples and keep, or compare, what scikit-learn estimators remember of their input.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_`` (values in a sample) and, for a DataFrame, ``feature_names_in_``.
    X : array-like
        See :func:`check_samples`.
    reset : bool
        Whether X is what the estimator is fitted on.
    input_shape : sequence of int, optional
        See :func:`check_samples`.

    Returns
    -------
    ndarray of shape (n, d) or (n, C, H, W)

    Raises
    ------
    ValueError
        If X breaks the data contract, or differs in features from what was fitted on.
    """
    samples = check_samples(X)
    if samples.ndim == 2:
        named = X if hasattr(X, "columns") else samples
        validate_data(estimator, named, reset=reset, skip_check_array=True)
    elif reset:
        estimator.n_features_in_ = math.prod(samples.shape[1:])
        vars(estimator).pop("feature_names_in_", None)
    return check_samples(samples, input_shape=input_shape)


def check_same_columns(names: Any, fitted_names: Any, *, name: str, model: str) -> None:
    """Refuse columns that are not those of a model, in their order, where both have names.

    Parameters
    ----------
    names, fitted_names : sequence of str or None
        Names of the columns at hand, and of those that the model was fitted on.
    name, model : str
        What the error message calls the two.

    Raises
    ------
    ValueError
        If they differ.
    """
    if names is None or fitted_names is None or list(names) == list(fitted_names):
        return
    raise ValueError(
        f"The feature names of {name} should match those that {model} was fitted on, in their "
        f"order: {list(fitted_names)}; got {list(names)}."
    )


def check_outlier_labels(y: Any) -> np.ndarray:
    """Check labels of scikit-learn's outlier convention: +1 inlier, -1 outlier.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels.

    Returns
    -------
    ndarray of shape (n,), int
        The same labels.

    Raises
    ------
    ValueError
        If any label is not -1 or +1; for 0/1 labels the message shows how to map them.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"y must be one-dimensional; got shape {labels.shape}")
    values = np.unique(labels)
    if np.isin(values, (-1, 1)).all():
        return labels.astype(int)
    if np.isin(values, (0, 1)).all():
        raise ValueError(
            "y holds 0/1, but outlier labels are +1 (inlier) and -1 (outlier). If 1 marks an "
            "anomaly, pass np.where(y == 1, -1, 1); if 1 marks an inlier, pass "
            "np.where(y == 1, 1, -1)."
        )
    raise ValueError(
        f"y must hold only +1 (inlier) and -1 (outlier); got the values {values[:10].tolist()}"
    )

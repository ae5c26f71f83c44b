"""Tables of per-layer statistics: which rows and columns of them a detector can be fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgradood.utils.warn import warn_user

# Rounding in float32 moves a squared norm by about this much; less spread carries no signal.
MIN_SPREAD = 1e-6
_REMEDY = (
    "If what is lost is no rounding, subtract a constant from the columns or standardise them."
)


def column_names(detector: Any) -> list:
    """Names of the columns that a detector was fitted on, or their numbers if they had none."""
    return list(getattr(detector, "feature_names_in_", range(detector.n_features_in_)))


def finite_rows(detector: Any, X: np.ndarray) -> np.ndarray:
    """Leave out training rows that hold NaN or infinity, with a warning.

    Raises
    ------
    ValueError
        If fewer than two rows are left.
    """
    is_finite = np.isfinite(X)
    finite = is_finite.all(axis=1)
    if finite.all():
        return X
    if finite.sum() < 2:
        worst = column_names(detector)[int(np.argmin(is_finite.sum(axis=0)))]
        raise ValueError(
            f"fit needs at least 2 rows without NaN or infinity; got {int(finite.sum())} of "
            f"{len(X)}. Most such values are in column {worst!r}: leave it out, or mend it."
        )
    warn_user(
        f"{int((~finite).sum())} of {len(X)} training rows hold NaN or infinity and were left out."
    )
    return X[finite]


def dropped_columns(detector: Any, support: np.ndarray) -> list:
    """Name the columns that vary by no more than rounding, with a warning if there are any.

    Raises
    ------
    ValueError
        If no column varies.
    """
    names = column_names(detector)
    dropped = [names[i] for i in np.flatnonzero(~support)]
    if not support.any():
        raise ValueError(
            f"none of the {len(names)} columns varies by more than {MIN_SPREAD:g} of its size over "
            "the training rows; there is nothing to model. Check that the rows are different "
            f"samples. {_REMEDY}"
        )
    if dropped:
        warn_user(
            f"{len(dropped)} of {len(names)} columns do not vary by more than {MIN_SPREAD:g} of "
            f"their size over the training rows and were left out: {dropped}. {_REMEDY}"
        )
    return dropped

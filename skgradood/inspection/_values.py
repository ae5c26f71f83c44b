"""Numbers that displays are given, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def check_vectors(vectors: Any, name: str) -> dict[str, np.ndarray]:
    """Check one vector for each name.

    Parameters
    ----------
    vectors : mapping of str to array-like of shape (n,)
        Not NaN; infinite values are allowed.
    name : str
        What error messages call the mapping.

    Returns
    -------
    dict of str to ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        For anything else.
    """
    if not isinstance(vectors, Mapping) or not vectors:
        raise ValueError(
            f"{name} must be a mapping from names to arrays (n,), not empty; got "
            f"{type(vectors).__name__}"
        )
    checked = {str(key): np.asarray(values, dtype=np.float64) for key, values in vectors.items()}
    for key, values in checked.items():
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(
                f"{name}[{key!r}] must have shape (n,) with n at least 1; got {values.shape}"
            )
        if np.isnan(values).any():
            row = int(np.argmax(np.isnan(values)))
            raise ValueError(f"{name}[{key!r}] holds NaN; row {row} is the first")
    return checked

"""Columns whose differences a module's dtype cannot hold."""

from __future__ import annotations

import warnings

import numpy as np
from torch import Tensor

# Of a column's standard deviation; a smaller rounding error is small beside the training noise.
_NOTICEABLE = 0.1
# From here over the fit of GenerativeNet and scikit-learn's wrapper of it to the user's line.
_TO_THE_USER = 6


def warn_of_lost_digits(samples: np.ndarray, inputs: Tensor) -> None:
    """Warn of columns whose differences a module's dtype cannot hold, such as times in seconds.

    Parameters
    ----------
    samples : ndarray of shape (n, d) or (n, C, H, W)
        Before the conversion; only rows are looked at.
    inputs : Tensor of the same shape
        After it, on the CPU.
    """
    if samples.ndim != 2 or inputs.dtype.itemsize >= samples.dtype.itemsize:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        rounding = np.abs(samples - inputs.numpy()).max(axis=0)
        moved = rounding > _NOTICEABLE * samples.std(axis=0)
        lost = np.flatnonzero(moved & (np.ptp(samples, axis=0) > 0))
    if len(lost):
        warnings.warn(
            f"rounding to {str(inputs.dtype).removeprefix('torch.')} moves values of "
            f"{len(lost)} columns, among them number {lost[0]}, by more than a tenth of the "
            "column's standard deviation. Standardise the columns before, for instance by "
            'StandardScaler, or use dtype="float64".',
            UserWarning,
            stacklevel=_TO_THE_USER,
        )

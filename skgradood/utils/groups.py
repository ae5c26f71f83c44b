"""Groups of samples, for tests that judge several samples at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skgradood.utils.validation import check_samples


def split_groups(X: Any) -> tuple[Any, int, int]:
    """Lay groups of samples one after another.

    Parameters
    ----------
    X : array or tensor of shape (n_groups, group_size, ...)
        Groups, as `make_groups` returns them.

    Returns
    -------
    samples : array or tensor of shape (n_groups * group_size, ...)
        The samples of the first group, then those of the second, and so on.
    n_groups, group_size : int
        How they were divided.

    Raises
    ------
    ValueError
        If X has fewer than three dimensions, or no sample.
    """
    groups = X if hasattr(X, "reshape") else np.asarray(X)
    if groups.ndim < 3 or 0 in groups.shape:
        raise ValueError(
            f"groups must have the shape (n_groups, group_size, ...); got {tuple(groups.shape)}. "
            "Make them with skgradood.utils.make_groups(X, group_size)."
        )
    n_groups, group_size = groups.shape[:2]
    return groups.reshape(n_groups * group_size, *groups.shape[2:]), n_groups, group_size


def make_groups(X: Any, group_size: int, *, random_state: Any = None) -> np.ndarray:
    """Divide samples at random into groups of one size.

    Parameters
    ----------
    X : array-like of shape (n, ...)
        Rows or images.
    group_size : int
        Samples in a group (B in the papers). Samples left over when n is not a multiple of
        it are dropped, chosen at random.
    random_state : int, RandomState or None, default=None
        The seed of the division.

    Returns
    -------
    ndarray of shape (n // group_size, group_size, ...)
        No sample occurs twice.

    Raises
    ------
    ValueError
        If ``group_size`` is not a positive integer, or exceeds n.
    """
    samples = check_samples(X)
    is_integer = isinstance(group_size, (int, np.integer)) and not isinstance(group_size, bool)
    if not is_integer or group_size < 1:
        raise ValueError(f"group_size must be a positive integer; got {group_size!r}")
    n_groups = len(samples) // group_size
    if n_groups == 0:
        raise ValueError(
            f"a group needs group_size={group_size} samples, but X has only {len(samples)}"
        )
    order = check_random_state(random_state).permutation(len(samples))
    chosen = order[: n_groups * group_size]
    return samples[chosen].reshape(n_groups, group_size, *samples.shape[1:])

"""What the models of rows share."""

from __future__ import annotations

from collections.abc import Sequence


def check_row_shape(input_shape: Sequence[int]) -> tuple[int]:
    """Check the shape of one row.

    Parameters
    ----------
    input_shape : sequence of int
        The number of features.

    Returns
    -------
    tuple of int
        The same number.

    Raises
    ------
    ValueError
        If there is not exactly one positive integer.
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) != 1 or shape[0] < 1:
        raise ValueError(
            "input_shape must be (n_features,), that of rows; "
            f"got {tuple(input_shape)}. For images use VAE or Glow."
        )
    return (shape[0],)

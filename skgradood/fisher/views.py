"""How a parameter tensor is viewed as a product of modes, each with a basis of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mode_sizes(shape: Sequence[int], max_factor_size: int) -> tuple[int, ...]:
    """Divide the dimensions of a parameter tensor into consecutive modes.

    Kronecker-factored approximations keep one factor a mode. A matrix has two; a vector has one,
    whose factor is its exact Fisher matrix. A convolution's weight (out, in, *kernel) has two,
    out and in x kernel, as in the literature, or three, where in x kernel would be too large to
    diagonalise and to rotate into: out, in and kernel.

    Parameters
    ----------
    shape : sequence of int
        Shape of the tensor.
    max_factor_size : int
        Largest second mode of a tensor with three or more dimensions.

    Returns
    -------
    tuple of int
        Sizes whose product is the number of elements.

    Examples
    --------
    >>> mode_sizes((64, 32, 4, 4), 1024), mode_sizes((32, 256, 4, 4), 1024), mode_sizes((), 1024)
    ((64, 512), (32, 256, 16), (1,))
    """
    if len(shape) == 0:
        return (1,)
    first, rest = shape[0], math.prod(shape[1:])
    if len(shape) == 1:
        return (first,)
    if len(shape) == 2 or rest <= max_factor_size:
        return (first, rest)
    return (first, shape[1], math.prod(shape[2:]))

"""What the image models share: the pixel grid 0...255 and the shape of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

N_VALUES = 256


def check_image_shape(input_shape: Sequence[int], *, smallest: int) -> tuple[int, int, int]:
    """Check the shape of one image.

    Parameters
    ----------
    input_shape : sequence of int
        Channels, height and width.
    smallest : int
        Least height and width that the model can take.

    Returns
    -------
    tuple of int
        The same three numbers.

    Raises
    ------
    ValueError
        If there are not three positive integers, or the image is too small.
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < smallest:
        raise ValueError(
            "input_shape must be (channels, height, width) of an image with height and width of "
            f"at least {smallest}; got {tuple(input_shape)}"
        )
    return shape


def to_unit(X: Tensor, dtype: torch.dtype, noise: Tensor | float = 0.5) -> Tensor:
    """Map pixel values 0...255 into (-0.5, 0.5).

    Parameters
    ----------
    X : Tensor of shape (n, C, H, W)
        Pixel values as stored.
    dtype : torch.dtype
        Floating dtype of the result.
    noise : Tensor or float, default=0.5
        Position inside the bin of a value, in [0, 1); 0.5 is its midpoint.

    Returns
    -------
    Tensor of shape (n, C, H, W)
    """
    return (X.to(dtype) + noise) / N_VALUES - 0.5


def from_unit(y: Tensor) -> Tensor:
    """The uint8 pixel whose bin holds y, the inverse of `to_unit` for any noise."""
    return ((y + 0.5) * N_VALUES).floor().clamp(0, N_VALUES - 1).to(torch.uint8)

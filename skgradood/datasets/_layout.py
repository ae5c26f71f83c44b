"""Images as functions of pixels want them, (n, C, H, W), and back in the layout they came in."""

from __future__ import annotations

from typing import Any

import numpy as np

from skgradood.utils.validation import check_samples


def grid_images(X: Any, *, caller: str) -> np.ndarray:
    """Check uint8 images and put their channels first.

    Parameters
    ----------
    X : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C), uint8
    caller : str
        The function that error messages name.

    Returns
    -------
    ndarray of shape (n, C, H, W), uint8

    Raises
    ------
    ValueError
        For anything else.
    """
    array = np.asarray(X)
    images = check_samples(array)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"{caller} expects images of dtype uint8, (n, H, W), (n, C, H, W) or (n, H, W, C); "
            f"got shape {array.shape} of {array.dtype}"
        )
    return images


def to_grid(images: np.ndarray) -> np.ndarray:
    """Round to whole grey levels and clip to 0...255, uint8."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def in_layout_of(X: Any, images: np.ndarray) -> np.ndarray:
    """Images (n, C, H, W) in the shape that X came in."""
    shape = np.shape(X)
    if images.shape != shape and len(shape) == 4:  # the channels of X come last
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return images.reshape(shape)

"""Hue, saturation and value: a change of variables, with its determinant."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skgradood.datasets._layout import in_layout_of
from skgradood.utils.validation import check_samples


def rgb_to_hsv(X: Any, *, random_state: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Represent colours by hue, saturation and value, and say what that does to densities.

    With V = max(R, G, B) and S = (V - min(R, G, B)) / V, the derivative of (H, S, V) with respect
    to (R, G, B) has the determinant ±1 / (6 V² S) at every pixel. Densities change by it,

        log p(HSV) = log p(RGB) - sum over pixels of log_det,

    and bits per dimension by ``log_det.sum((1, 2)) / (3 * H * W * np.log(2))``: by an amount
    that depends on the image and on no model, and that changes the order of images by
    likelihood [1]_ [2]_.

    Parameters
    ----------
    X : array-like of shape (n, 3, H, W) or (n, H, W, 3)
        Colour images: uint8, or real numbers in [0, 1] that are taken as they are. A uint8 value v
        stands for the interval from v/256 to (v + 1)/256, and is replaced by a number drawn
        uniformly from it: whole numbers have no density, and grey pixels no hue.
    random_state : int, RandomState or None, default=None
        Seed of these numbers.

    Returns
    -------
    hsv : ndarray of the shape of X, float64
        All three in [0, 1]; hue is 0 for red, 1/3 for green, 2/3 for blue.
    log_det : ndarray of shape (n, H, W), float64
        Logarithm of the absolute determinant at each pixel; infinite where the transformation is
        singular, for black and exactly grey pixels, which only real numbers can have.

    Raises
    ------
    ValueError
        If X is not colour images, or holds numbers outside [0, 1].

    Notes
    -----
    What is described is the density of the dequantised image, for one draw of the noise; where a
    colour is nearly grey the determinant depends much on that draw. Images rounded to 256 levels
    of each of H, S and V are something else: several colours share one triple and many triples
    have no colour, so that probabilities of theirs do not follow from those of RGB images.

    References
    ----------
    .. [1] Le Lan and Dinh, "Perfect Density Models Cannot Guarantee Anomaly Detection", Entropy
       2021.
    .. [2] Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information Metric of
       Deep Generative Models for Out-Of-Distribution Detection", TMLR 2024.
    """
    images = check_samples(X)
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            "rgb_to_hsv expects colour images, (n, 3, H, W) or (n, H, W, 3); got shape "
            f"{np.shape(X)}"
        )
    rgb = _dequantise(images, random_state)
    largest, smallest = rgb.max(axis=1), rgb.min(axis=1)
    range_ = largest - smallest
    with np.errstate(divide="ignore", invalid="ignore"):
        saturation = np.where(largest > 0, range_ / largest, 0.0)
        log_det = -np.log(6 * largest * range_)  # V² S = V (V - min)
    hsv = np.stack([_hue(rgb, largest, range_), saturation, largest], axis=1)
    return in_layout_of(X, hsv), log_det


def _dequantise(images: np.ndarray, random_state: Any) -> np.ndarray:
    if images.dtype == np.uint8:
        noise = check_random_state(random_state).random_sample(images.shape)
        return (images + noise) / 256
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            "colours that are not uint8 must lie in [0, 1]; got values from "
            f"{images.min():g} to {images.max():g}"
        )
    return images.astype(np.float64, copy=False)


def _hue(rgb: np.ndarray, largest: np.ndarray, range_: np.ndarray) -> np.ndarray:
    """Position on the circle of colours, in [0, 1]; 0 for grey."""
    red, green, blue = np.moveaxis(rgb, 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sixths = np.select(
            [range_ == 0, largest == red, largest == green],
            [0.0, (green - blue) / range_ % 6, 2 + (blue - red) / range_],
            4 + (red - green) / range_,
        )
    return sixths / 6

"""Bits per dimension without a network: counts, a normal distribution, neighbours, codecs."""

from __future__ import annotations

import math

import numpy as np

from skgradood.complexity import code_lengths
from skgradood.models import PixelDifferenceModel

# What is added to every count, and to every variance, is chosen in the simple model's favour.
PSEUDO_COUNTS = (0.01, 0.1, 1.0)
VARIANCES = tuple(2.0**k / 24 for k in range(8))
CODECS = {"png": "PNG", "webp": "WebP", "jpegxl": "JPEG XL"}
N_CODED = 250


def histogram_bits(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Independent values, each with the frequencies at its place in the training images.

    Parameters
    ----------
    train, test : ndarray of shape (n, ...), uint8

    Returns
    -------
    ndarray of shape (n_test,)
        Bits per dimension.
    """
    values, counts = _rows(test), _counts(_rows(train))
    places = np.arange(values.shape[1])
    kindest = [_log2_shares(counts, more)[places, values] for more in PSEUDO_COUNTS]
    return min((-log2.mean(axis=1) for log2 in kindest), key=np.mean)


def pooled_histogram_bits(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The same with one histogram for all places: what can be known without a position."""
    counts = np.bincount(train.ravel(), minlength=256)
    kindest = [_log2_shares(counts, more)[_rows(test)] for more in PSEUDO_COUNTS]
    return min((-log2.mean(axis=1) for log2 in kindest), key=np.mean)


def gaussian_bits(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Bound of a normal distribution with full covariance under uniform dequantisation.

    With values spread evenly in their bins of width one, the mean of the quadratic form of the
    precision matrix P is the one at the midpoints plus tr(P) / 12.

    Parameters and returned value as for `histogram_bits`.
    """
    rows = _rows(train).astype(np.float64)
    mean = rows.mean(axis=0)
    rows -= mean
    eigenvalues, basis = np.linalg.eigh(rows.T @ rows / (len(rows) - 1))
    squares = ((_rows(test) - mean) @ basis) ** 2

    def bits(variance: float) -> np.ndarray:
        variances = eigenvalues.clip(min=0) + variance
        constant = np.log(2 * np.pi * variances) + 1 / (12 * variances)
        nats = 0.5 * (constant.sum() + squares @ (1 / variances))
        return nats / (len(variances) * math.log(2))

    return min((bits(variance) for variance in VARIANCES), key=np.mean)


def neighbour_bits(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """`PixelDifferenceModel`: histograms of the differences between neighbouring pixels."""
    nats = -PixelDifferenceModel().fit(train).score_samples(test)
    return nats / (test[0].size * math.log(2))


def code_bits(images: np.ndarray, codec: str) -> np.ndarray:
    """Every image a file of its own, containers included."""
    return code_lengths(images, codec=codec) / (images[0].size * math.log(2))


def joint_code_bits(images: np.ndarray, codec: str) -> float:
    """All images below one another in one file, which then has one container for all."""
    picture = images.reshape(1, -1, *images.shape[2:])
    return float(code_bits(picture, codec)[0])


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _counts(rows: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(column, minlength=256) for column in rows.T])


def _log2_shares(counts: np.ndarray, more: float) -> np.ndarray:
    smoothed = counts + more
    return np.log2(smoothed / smoothed.sum(axis=-1, keepdims=True))

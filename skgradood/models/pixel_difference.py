"""A model of images that knows neighbouring pixels only."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.utils import Tags, gen_batches
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.validation import check_and_remember_samples

_N_VALUES = 256
_LARGEST = _N_VALUES - 1
_N_DIFFERENCES = 2 * _N_VALUES - 1
_ROWS_AT_ONCE = 1024
# The difference of every value (columns) from every value of a neighbour (rows), as an index.
_DIFFERENCE = np.arange(_N_VALUES) - np.arange(_N_VALUES)[:, None] + _LARGEST


class PixelDifferenceModel(DensityMixin, BaseEstimator):
    """Histograms of the differences between neighbouring pixels, as a density of images.

    It knows smoothness and contrast, nothing of shapes or places. How far the likelihoods of deep
    models go along with its likelihoods shows how far they are about such low-level features [1]_;
    and as the background of `skgradood.LikelihoodRatioDetector` it takes them out.

    With q_h and q_v the relative frequencies of the differences -255...255 of a pixel from its
    left neighbour and from the one above, in all images, channels and places,

        log p(x) = sum over pixels of log q_h(x_ij - x_i,j-1) + log q_v(x_ij - x_i-1,j) - log Z,

    where Z sums the same over the 256 values that the pixel could have. A pixel of the first row
    has its left neighbour alone, one of the first column the one above, and the first pixel of a
    channel is uniform.

    Parameters
    ----------
    normalize : bool, default=True
        Without it log Z and the first pixel are left out: the sum of the log frequencies of all
        differences, a pseudo-likelihood that is no distribution over images.
    smoothing : float, default=1.0
        Added to the count of every difference, so that none is impossible.

    Attributes
    ----------
    log_frequencies_ : ndarray of shape (2, 511), float64
        log q_h and log q_v of the differences -255...255, in nats.
    n_features_in_ : int
        Values in an image.

    References
    ----------
    .. [1] Schirrmeister, Zhou, Ball and Zhang, "Understanding Anomaly Detection with Deep
       Invertible Networks through Hierarchies of Distributions and Features", NeurIPS 2020.

    Examples
    --------
    >>> from skgradood.datasets import load_digits_ood
    >>> from skgradood.models import PixelDifferenceModel
    >>> digits = load_digits_ood(random_state=0)
    >>> model = PixelDifferenceModel().fit(digits.train)
    >>> model.score(digits.test) > model.score(digits.ood["noise"])
    True
    """

    _parameter_constraints: dict[str, list] = {
        "normalize": ["boolean"],
        "smoothing": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, *, normalize: bool = True, smoothing: float = 1.0) -> None:
        self.normalize = normalize
        self.smoothing = smoothing

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> PixelDifferenceModel:
        """Count differences.

        Parameters
        ----------
        X : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C), uint8
            Images.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X is not images of uint8.
        """
        with untouched_by_failure(self):
            images = self._images(X, reset=True)
        counts = np.full((2, _N_DIFFERENCES), float(self.smoothing))
        for rows in gen_batches(len(images), _ROWS_AT_ONCE):
            for direction, differences in enumerate(_differences(images[rows])):
                counts[direction] += np.bincount(differences.ravel(), minlength=_N_DIFFERENCES)
        self.log_frequencies_ = np.log(counts / counts.sum(axis=1, keepdims=True))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the log-likelihood of images, or their pseudo-likelihood.

        Parameters
        ----------
        X : array-like
            As in `fit`; of any size.

        Returns
        -------
        ndarray of shape (n,), float64
            Nats, summed over the pixels of an image.

        Raises
        ------
        ValueError
            If X is not images of uint8.
        """
        check_is_fitted(self)
        images = self._images(X, reset=False)
        scores = _log_likelihoods if self.normalize else _pseudo_log_likelihoods
        return np.concatenate(
            [
                scores(images[rows], self.log_frequencies_)
                for rows in gen_batches(len(images), _ROWS_AT_ONCE)
            ]
        )

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood in nats.

        Parameters
        ----------
        X : array-like
            As in `fit`.
        y : ignored
            Part of scikit-learn's convention.

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean())

    def _images(self, X: Any, *, reset: bool) -> np.ndarray:
        images = check_and_remember_samples(self, X, reset=reset)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(
                "PixelDifferenceModel expects images of dtype uint8, (n, H, W), (n, C, H, W) or "
                f"(n, H, W, C); got shape {images.shape} of {images.dtype}"
            )
        return images

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _differences(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the left neighbour and from the one above, as indices 0...510."""
    values = images.astype(np.int16)
    return np.diff(values, axis=-1) + _LARGEST, np.diff(values, axis=-2) + _LARGEST


def _pseudo_log_likelihoods(images: np.ndarray, log_frequencies: np.ndarray) -> np.ndarray:
    by_direction = [
        table[differences].sum(axis=(1, 2, 3))
        for table, differences in zip(log_frequencies, _differences(images), strict=True)
    ]
    return by_direction[0] + by_direction[1]


def _log_likelihoods(images: np.ndarray, log_frequencies: np.ndarray) -> np.ndarray:
    """Pseudo-likelihoods over what they sum to, pixel by pixel."""
    left, above = np.exp(log_frequencies)[:, _DIFFERENCE]
    normalizer = np.log(left @ above.T)[images[..., 1:, :-1], images[..., :-1, 1:]]
    first_row = np.log(left.sum(axis=1))[images[..., 0, :-1]]
    first_column = np.log(above.sum(axis=1))[images[..., :-1, 0]]
    first_pixels = images.shape[1] * np.log(_N_VALUES)
    return (
        _pseudo_log_likelihoods(images, log_frequencies)
        - normalizer.sum(axis=(1, 2, 3))
        - first_row.sum(axis=(1, 2))
        - first_column.sum(axis=(1, 2))
        - first_pixels
    )

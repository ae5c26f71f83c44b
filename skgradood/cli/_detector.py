"""A saved detector, and samples in the form that it takes."""

from __future__ import annotations

from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skgradood.cli._data import Samples, read_samples
from skgradood.detectors import ConformalDetector
from skgradood.persistence import load

_MODES = {1: "grey", 3: "rgb"}
_COLOUR_CHANNELS = (3, 4)


def load_with_samples(
    detector: str, data: str, *, size: list[int] | None, on_error: str
) -> tuple[ConformalDetector, Samples]:
    """Load a detector, and read samples that fit it.

    Parameters
    ----------
    detector : str
        Path of a detector that ``fit`` wrote.
    data : str
        Path of the samples.
    size : [H, W] or None
        Size to which all images are brought.
    on_error : {"raise", "skip"}
        What to do with image files that cannot be read.

    Returns
    -------
    detector : ConformalDetector
    samples : Samples

    Raises
    ------
    ValueError
        If the detector gives no p-values, or judges something else than these samples.
    """
    calibrated = load(detector)
    if not isinstance(calibrated, ConformalDetector):
        raise ValueError(
            f"{detector} holds a {type(calibrated).__name__}, which has no p-values; save a "
            "ConformalDetector"
        )
    try:
        check_is_fitted(calibrated)
    except NotFittedError as error:
        raise ValueError(
            f"{detector} holds a ConformalDetector that is not fitted; fit it before it is saved"
        ) from error
    shape = _input_shape(calibrated)
    mode = _MODES.get(shape[0], "auto") if len(shape) == 3 else "auto"
    samples = read_samples(data, size=size, mode=mode, on_error=on_error)
    if shape:
        _check_shape(samples, shape, detector, data)
    return calibrated, samples


def _input_shape(estimator: Any) -> tuple[int, ...]:
    """Return the shape of one sample, (C, H, W) or (d,); () if no model tells it."""
    if isinstance(estimator, ConformalDetector):
        return _input_shape(estimator.detector_)
    if isinstance(estimator, FrozenEstimator):
        return _input_shape(estimator.estimator)
    if isinstance(estimator, Pipeline):
        return next(filter(None, (_input_shape(step) for _, step in estimator.steps)), ())
    if hasattr(estimator, "likelihood_model_"):
        return tuple(estimator.likelihood_model_.input_shape)
    return ()


def _check_shape(samples: Samples, shape: tuple[int, ...], detector: str, data: str) -> None:
    if samples.are_images != (len(shape) == 3):
        expected = "images" if len(shape) == 3 else f"rows of {shape[0]} numbers"
        raise ValueError(
            f"{detector} judges {expected}, but {data} holds "
            f"{'images' if samples.are_images else 'rows'} of shape {samples.X.shape[1:]}"
        )
    if not samples.are_images or samples.shape == shape:
        return
    if samples.shape[1:] != shape[1:]:
        advice = f"resize them with --size {shape[1]} {shape[2]}"
        if samples.shape[2] in _COLOUR_CHANNELS:
            advice = f"one colour picture is an array (1, H, W, 3); else {advice}"
        raise ValueError(
            f"{detector} judges images of {shape[1]} x {shape[2]} pixels, but those in {data} have "
            f"{samples.shape[1]} x {samples.shape[2]}; {advice}"
        )
    raise ValueError(
        f"{detector} judges images of {shape[0]} channels, but those in {data} have "
        f"{samples.shape[0]}"
    )

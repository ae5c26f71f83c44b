"""A saved detector, and samples in the form that it takes."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from skgradood.cli._data import Samples, read_samples
from skgradood.detectors import ConformalDetector
from skgradood.persistence import load

_MODES = {1: "grey", 3: "rgb"}


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
    shape = _input_shape(calibrated)
    mode = _MODES.get(shape[0], "auto") if len(shape) == 3 else "auto"
    samples = read_samples(data, size=size, mode=mode, on_error=on_error)
    _check_shape(samples, shape, detector, data)
    return calibrated, samples


def _input_shape(calibrated: ConformalDetector) -> tuple[int, ...]:
    """Return the shape of one sample, (C, H, W) or (d,); () if no model tells it."""
    detector: Any = calibrated.detector_
    while isinstance(detector, Pipeline):
        steps = [step for _, step in detector.steps]
        for step in steps:
            if hasattr(step, "likelihood_model_"):
                return tuple(step.likelihood_model_.input_shape)
        detector = steps[-1]
    return ()


def _check_shape(samples: Samples, shape: tuple[int, ...], detector: str, data: str) -> None:
    if not shape:
        return
    if samples.are_images != (len(shape) == 3):
        expected = "images" if len(shape) == 3 else f"rows of {shape[0]} numbers"
        raise ValueError(
            f"{detector} judges {expected}, but {data} holds "
            f"{'images' if samples.are_images else 'rows'} of shape {samples.X.shape[1:]}"
        )
    if samples.are_images and samples.X.shape[1:3] != shape[1:]:
        raise ValueError(
            f"{detector} judges images of {shape[1]} x {shape[2]} pixels, but those in {data} have "
            f"{samples.X.shape[1]} x {samples.X.shape[2]}; resize them with --size "
            f"{shape[1]} {shape[2]}"
        )

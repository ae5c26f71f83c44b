"""``skgradood score``: from data to a table of verdicts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from skgradood.cli._console import say
from skgradood.cli._data import Samples, read_samples
from skgradood.detectors import ConformalDetector
from skgradood.persistence import load

_COLUMNS = ("name", "score", "p_value", "verdict")
_VERDICTS = {1: "inlier", -1: "outlier"}
_MODES = {1: "grey", 3: "rgb"}


def score(*, detector: str, data: str, out: str, size: list[int] | None, on_error: str) -> None:
    """Judge every sample and write a CSV.

    Parameters
    ----------
    detector : str
        Path of a detector that ``fit`` wrote.
    data : str
        Path of the samples.
    out : str
        Path of the CSV.
    size : [H, W] or None
        Size to which all images are brought.
    on_error : {"raise", "skip"}
        What to do with image files that cannot be read.
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
    n_outliers = _write(calibrated, samples, Path(out))
    n = len(samples.names)
    say(f"{n_outliers} of {n} samples are outliers at alpha = {calibrated.alpha:g}; saved {out}")


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


def _write(calibrated: ConformalDetector, samples: Samples, path: Path) -> int:
    scores = calibrated.score_samples(samples.X)
    p_values = calibrated.p_values_of_scores(scores)
    verdicts = np.where(p_values <= calibrated.alpha, -1, 1)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        rows = zip(samples.names, scores, p_values, verdicts, strict=True)
        for name, value, p_value, verdict in rows:
            writer.writerow([name, repr(float(value)), repr(float(p_value)), _VERDICTS[verdict]])
    return int(np.sum(verdicts == -1))

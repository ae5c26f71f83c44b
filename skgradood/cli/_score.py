"""``skgradood score``: from data to a table of verdicts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from skgradood.cli._console import say
from skgradood.cli._data import Samples, check_destination
from skgradood.cli._detector import load_with_samples
from skgradood.detectors import ConformalDetector

_COLUMNS = ("name", "score", "p_value", "verdict")
_VERDICTS = {1: "inlier", -1: "outlier"}


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
    destination = check_destination(out)
    calibrated, samples = load_with_samples(detector, data, size=size, on_error=on_error)
    n_outliers = _write(calibrated, samples, destination)
    n = len(samples.names)
    say(f"{n_outliers} of {n} samples are outliers at alpha = {calibrated.alpha:g}; saved {out}")


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

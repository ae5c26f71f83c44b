"""``skgradood score``: from data to a table of verdicts."""

from __future__ import annotations

import csv
import io

import numpy as np

from skgradood.cli._console import complain, hand_out, leads_to_stdout, say
from skgradood.cli._data import check_destination
from skgradood.cli._detector import load_with_samples
from skgradood.utils.files import replacing

_COLUMNS = ("name", "score", "p_value", "verdict")
_VERDICTS = {False: "inlier", True: "outlier"}


def score(*, detector: str, data: str, out: str, size: list[int] | None, on_error: str) -> None:
    """Judge every sample and write a CSV.

    Parameters
    ----------
    detector : str
        Path of a detector that ``fit`` wrote.
    data : str
        Path of the samples.
    out : str
        Path of the CSV; "-" for standard output.
    size : [H, W] or None
        Size to which all images are brought.
    on_error : {"raise", "skip"}
        What to do with image files that cannot be read.
    """
    to_stdout = leads_to_stdout(out)
    if not to_stdout:
        check_destination(out, detector, data)
    calibrated, samples = load_with_samples(detector, data, size=size, on_error=on_error)
    scores = calibrated.score_samples(samples.X)
    p_values = calibrated.p_values_of_scores(scores)
    outlying = p_values <= calibrated.alpha
    summary = (
        f"{outlying.sum()} of {len(scores)} samples are outliers at alpha = {calibrated.alpha:g}"
    )
    table = _as_csv(samples.names, scores, p_values, outlying)
    if to_stdout:
        hand_out(table)
        complain(summary)
        return
    with replacing(out) as stream:
        stream.write(table)
    say(f"{summary}; saved {out}")


def _as_csv(
    names: list[str], scores: np.ndarray, p_values: np.ndarray, outlying: np.ndarray
) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for name, value, p_value, out in zip(names, scores, p_values, outlying, strict=True):
        writer.writerow([name, repr(float(value)), repr(float(p_value)), _VERDICTS[bool(out)]])
    # A name of a file may hold bytes that are no text.
    return text.getvalue().encode("utf-8", "backslashreplace")

"""``skgradood report``: what was flagged, and why, as a page."""

from __future__ import annotations

from pathlib import Path

from skgradood.cli._console import say
from skgradood.cli._data import check_destination
from skgradood.cli._detector import load_with_samples
from skgradood.inspection import DetectionReport


def report(
    *, detector: str, data: str, out: str, size: list[int] | None, on_error: str, max_shown: int
) -> None:
    """Judge every sample and write a page of HTML.

    Parameters
    ----------
    detector : str
        Path of a detector that ``fit`` wrote.
    data : str
        Path of the samples.
    out : str
        Path of the page.
    size : [H, W] or None
        Size to which all images are brought.
    on_error : {"raise", "skip"}
        What to do with image files that cannot be read.
    max_shown : int
        How many flagged samples to show at most.
    """
    destination = check_destination(out, detector, data)
    calibrated, samples = load_with_samples(detector, data, size=size, on_error=on_error)
    title = f"{Path(data).resolve().name} judged by {Path(detector).name}"
    page = DetectionReport.from_detector(calibrated, samples.X, names=samples.names, title=title)
    page.save(destination, max_shown=max_shown)
    n_flagged, n = len(page.flagged_), len(samples.names)
    say(f"{n_flagged} of {n} samples are outliers at alpha = {calibrated.alpha:g}; saved {out}")

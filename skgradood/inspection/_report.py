"""A page about a detector's verdicts: what was flagged, and which layers speak against it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from skgradood.detectors import ConformalDetector
from skgradood.inspection._explanation import LayerEvidence, layer_evidence
from skgradood.inspection._report_page import render
from skgradood.utils.files import replacing
from skgradood.utils.validation import check_samples

# Samples whose layers are averaged over all that was flagged, the most outlying first.
_MOST_EXPLAINED = 256


class DetectionReport:
    """Verdicts of a calibrated detector on data, and why, as one HTML page.

    The page holds its images and needs no network, no script and no optional package.

    Parameters
    ----------
    X : ndarray of shape (n, d) or (n, C, H, W)
        The samples.
    names : sequence of str
        What the n samples are called.
    scores, p_values : ndarray of shape (n,)
        Of the n samples.
    alpha : float
        Samples with a p-value of at most alpha are flagged.
    offset : float
        Samples that score below it are flagged.
    order : ndarray of shape (n,), int
        The samples from the most outlying one on.
    evidence : LayerEvidence or None
        Of the first samples of ``order``; None if the detector does not know layers.
    calibration_scores : ndarray of shape (m,)
        Scores of the calibration samples.
    title : str
        The page's title.

    Attributes
    ----------
    flagged_ : ndarray of int
        Numbers of the flagged samples, the most outlying first.
    """

    def __init__(
        self,
        X: np.ndarray,
        *,
        names: Sequence[str],
        scores: np.ndarray,
        p_values: np.ndarray,
        alpha: float,
        offset: float,
        order: np.ndarray,
        evidence: LayerEvidence | None,
        calibration_scores: np.ndarray,
        title: str,
    ):
        self.X = X
        self.names = names
        self.scores = scores
        self.p_values = p_values
        self.alpha = alpha
        self.offset = offset
        self.order = order
        self.evidence = evidence
        self.calibration_scores = calibration_scores
        self.title = title
        self.flagged_ = order[p_values[order] <= alpha]

    @classmethod
    def from_detector(
        cls,
        detector: ConformalDetector,
        X: Any,
        *,
        names: Sequence[str] | None = None,
        title: str = "Detection report",
    ) -> DetectionReport:
        """Judge samples, and ask the detector why.

        Parameters
        ----------
        detector : ConformalDetector
            Fitted.
        X : array-like of shape (n, ...)
            Samples, as the detector takes them.
        names : sequence of str, optional
            What they are called; their numbers by default.
        title : str, default="Detection report"
            The page's title.

        Returns
        -------
        DetectionReport

        Raises
        ------
        TypeError
            If the detector gives no p-values.
        ValueError
            If the detector does not take X, or names are not as many as samples.
        """
        if not isinstance(detector, ConformalDetector):
            raise TypeError(
                "a report needs p-values: pass a fitted ConformalDetector; got "
                f"{type(detector).__name__}"
            )
        check_is_fitted(detector)
        samples = check_samples(X)
        names = list(map(str, range(len(samples)) if names is None else names))
        if len(names) != len(samples):
            raise ValueError(
                f"names must hold {len(samples)} names, one a sample; got {len(names)}"
            )
        scores = detector.score_samples(X)
        order = np.argsort(scores, kind="stable")
        return cls(
            samples,
            names=names,
            scores=scores,
            p_values=detector.p_values_of_scores(scores),
            alpha=detector.alpha,
            offset=detector.offset_,
            order=order,
            evidence=layer_evidence(detector, _safe_indexing(X, order[:_MOST_EXPLAINED])),
            calibration_scores=detector.calibration_scores_,
            title=title,
        )

    def to_html(self, *, max_shown: int = 24) -> str:
        """Write the page.

        Parameters
        ----------
        max_shown : int, default=24
            How many samples to show at most, the most outlying first.

        Returns
        -------
        str
            A whole HTML document.
        """
        return render(self, max_shown=max_shown)

    def save(self, path: str | os.PathLike[str], *, max_shown: int = 24) -> None:
        """Write the page to a file, as a whole or not at all.

        Parameters
        ----------
        path : path-like
            Where; by convention it ends in ".html".
        max_shown : int, default=24
            As in `to_html`.
        """
        page = self.to_html(max_shown=max_shown)
        with replacing(path) as stream:
            # A name of a file may hold bytes that are no text.
            stream.write(page.encode("utf-8", "backslashreplace"))

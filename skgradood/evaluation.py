"""Tables of detectors against out-of-distribution data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skgradood.detectors import ConformalDetector
from skgradood.metrics import auroc, average_precision, fpr_at_tpr
from skgradood.utils.seeds import fixed_seed

_SCORE_METRICS = {"auroc": auroc, "average_precision": average_precision, "fpr95": fpr_at_tpr}
_WORST_OF = {"auroc": min, "average_precision": min, "fpr95": max, "detection_rate": min}


@dataclass(frozen=True)
class Comparison:
    """How well each detector tells each out-of-distribution (OOD) set from test data.

    Attributes
    ----------
    metrics : dict of str to dict of str to dict of str to float
        ``metrics[metric][ood_set][detector]``, in [0, 1]. Metrics are "auroc",
        "average_precision" and "fpr95" (false-positive rate where 95 % of the OOD set is
        detected), each of the OOD set against the test data with outliers as positives, and
        "detection_rate" (the share of the OOD set with p <= alpha).
    false_positive_rate : dict of str to float
        The share of the test data with p <= alpha, by detector.
    alpha : float
        The false-positive rate for which the detectors were calibrated.
    """

    metrics: dict[str, dict[str, dict[str, float]]]
    false_positive_rate: dict[str, float]
    alpha: float

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary for each OOD set and detector, as for ``csv.DictWriter``.

        Returns
        -------
        list of dict
            Keys "ood", "detector", the metrics, "false_positive_rate" and "alpha".
        """
        ood_sets = next(iter(self.metrics.values()))
        return [
            {
                "ood": ood,
                "detector": detector,
                **{metric: table[ood][detector] for metric, table in self.metrics.items()},
                "false_positive_rate": rate,
                "alpha": self.alpha,
            }
            for ood in ood_sets
            for detector, rate in self.false_positive_rate.items()
        ]

    def to_markdown(self, metric: str = "auroc") -> str:
        """Lay out one metric as a table that reads well as text, too.

        Parameters
        ----------
        metric : {"auroc", "average_precision", "fpr95", "detection_rate"}, default="auroc"
            The metric in the body of the table.

        Returns
        -------
        str
            OOD sets in rows, detectors in columns; then their worst and mean, and each
            detector's false-positive rate at ``alpha``.

        Raises
        ------
        ValueError
            For an unknown metric.
        """
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {list(self.metrics)}; got {metric!r}")
        detectors = list(self.false_positive_rate)
        table = self.metrics[metric]
        lines = [[ood, *(values[name] for name in detectors)] for ood, values in table.items()]
        by_detector = [[values[name] for values in table.values()] for name in detectors]
        worst = _WORST_OF[metric]
        lines += [
            ["worst", *(worst(values) for values in by_detector)],
            ["mean", *(float(np.mean(values)) for values in by_detector)],
            [f"false positives at {self.alpha:g}", *self.false_positive_rate.values()],
        ]
        return _markdown([metric, *detectors], lines)


def compare_detectors(
    detectors: Mapping[str, Any],
    X_reference: Any,
    X_test: Any,
    ood: Mapping[str, Any],
    *,
    alpha: float = 0.05,
    X_calibration: Any = None,
    random_state: Any = None,
) -> Comparison:
    """Fit detectors, calibrate them, and measure them on out-of-distribution (OOD) sets.

    The three in-distribution sets must be disjoint: what a detector was fitted on or calibrated
    with says nothing about its false-positive rate.

    Parameters
    ----------
    detectors : dict of str to estimator
        Detectors, density estimators or Pipelines by name. Unfitted ones are cloned and fitted
        on ``X_reference``; fitted ones are used as they are.
    X_reference : array-like of shape (n_reference, ...)
        Inliers to fit on: feature rows, or images if that is what the detectors take.
    X_test : array-like of shape (n_test, ...)
        Inliers to test on.
    ood : dict of str to array-like of shape (n_ood, ...)
        Outliers to test on, by name.
    alpha : float in (0, 1), default=0.05
        The false-positive rate to calibrate for.
    X_calibration : array-like of shape (n_calibration, ...), optional
        Inliers to calibrate with. Without it a fifth of ``X_reference`` is set apart for this,
        which is possible only for unfitted detectors.
    random_state : int, RandomState or None, default=None
        Seed of that division, which is the same for all detectors; None is a fixed seed, too.

    Returns
    -------
    Comparison
        All metrics, for every OOD set and detector.

    Raises
    ------
    ValueError
        If ``detectors`` or ``ood`` is empty, or a detector is fitted and there are no calibration
        data.
    """
    if not detectors or not ood:
        raise ValueError(
            f"at least one detector and one OOD set are needed; got {len(detectors)} detectors "
            f"and {len(ood)} OOD sets"
        )
    metrics: dict[str, dict[str, dict[str, float]]] = {
        metric: {name: {} for name in ood} for metric in _WORST_OF
    }
    seed = random_state if isinstance(random_state, Integral) else fixed_seed(random_state)
    false_positive_rate = {}
    for name, detector in detectors.items():
        calibrated = _calibrate(name, detector, X_reference, X_calibration, alpha, seed)
        scores_in = calibrated.score_samples(X_test)
        false_positive_rate[name] = _flagged(scores_in, calibrated)
        for ood_name, X_out in ood.items():
            scores_out = calibrated.score_samples(X_out)
            for metric, function in _SCORE_METRICS.items():
                metrics[metric][ood_name][name] = function(scores_in, scores_out)
            metrics["detection_rate"][ood_name][name] = _flagged(scores_out, calibrated)
    return Comparison(metrics, false_positive_rate, alpha)


def _calibrate(
    name: str,
    detector: Any,
    X_reference: Any,
    X_calibration: Any,
    alpha: float,
    seed: Any,
) -> ConformalDetector:
    fitted = _is_fitted(detector)
    if X_calibration is None:
        if fitted:
            raise ValueError(
                f"detector {name!r} is fitted, so X_reference cannot be divided into training and "
                "calibration data for it: pass X_calibration, which it has not seen."
            )
        calibrated = ConformalDetector(detector, alpha=alpha, random_state=seed)
        return calibrated.fit(X_reference)
    if not fitted:
        detector = clone(detector).fit(X_reference)
    return ConformalDetector(detector, alpha=alpha, calibration="prefit").fit(X_calibration)


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _flagged(scores: np.ndarray, detector: ConformalDetector) -> float:
    """Compute the share of the scores that the detector's ``predict`` calls outliers."""
    return float(np.mean(scores < detector.offset_))


def _markdown(header: list[str], lines: list[list[Any]]) -> str:
    cells = [header] + [[line[0], *(f"{value:.3f}" for value in line[1:])] for line in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    padded = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in cells
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])

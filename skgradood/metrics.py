"""How well scores separate inliers from outliers.

Every function takes the scores of inliers and of outliers apart, higher being more normal, so
that no label convention can be mixed up; ``positive`` names the class that counts as detected.
Scores may be infinite (-inf is a certain outlier): only their order matters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

_SIGN_OF_POSITIVE = {"outlier": -1, "inlier": 1}


def auroc(scores_in: Any, scores_out: Any, *, positive: str = "outlier") -> float:
    """Area under the ROC curve.

    The probability that an inlier scores higher than an outlier, a tie counting one half
    (the Mann-Whitney statistic).

    Parameters
    ----------
    scores_in : array-like of shape (n_in,)
        Scores of inliers, higher being more normal.
    scores_out : array-like of shape (n_out,)
        Scores of outliers.
    positive : {"outlier", "inlier"}, default="outlier"
        The positive class. The area is the same for both; the argument is here so that all
        metrics can be called alike.

    Returns
    -------
    float
        In [0, 1]; 1 if every inlier scores above every outlier.

    Raises
    ------
    ValueError
        For empty or NaN scores (the first offending row is named), or an unknown ``positive``.
    """
    return float(roc_auc_score(*_labels_and_ranks(scores_in, scores_out, positive)))


def average_precision(scores_in: Any, scores_out: Any, *, positive: str = "outlier") -> float:
    """Average precision: the mean of the precision over the recalls of the positive class.

    Unlike the area under the ROC curve it depends on which class is positive and on how common
    that class is.

    Parameters
    ----------
    scores_in : array-like of shape (n_in,)
        Scores of inliers, higher being more normal.
    scores_out : array-like of shape (n_out,)
        Scores of outliers.
    positive : {"outlier", "inlier"}, default="outlier"
        The class to be retrieved.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    ValueError
        For empty or NaN scores (the first offending row is named), or an unknown ``positive``.
    """
    return float(average_precision_score(*_labels_and_ranks(scores_in, scores_out, positive)))


def fpr_at_tpr(
    scores_in: Any, scores_out: Any, *, tpr: float = 0.95, positive: str = "outlier"
) -> float:
    """False-positive rate where a given share of the positives is detected.

    The threshold is the strictest one at which at least ``tpr`` of the positives are detected;
    scores equal to it count as detected, on both sides.

    Parameters
    ----------
    scores_in : array-like of shape (n_in,)
        Scores of inliers, higher being more normal.
    scores_out : array-like of shape (n_out,)
        Scores of outliers.
    tpr : float in (0, 1], default=0.95
        The share of the positives to be detected.
    positive : {"outlier", "inlier"}, default="outlier"
        "outlier": the share of inliers that are flagged when ``tpr`` of the outliers are.
        "inlier": the share of outliers that are accepted when ``tpr`` of the inliers are.

    Returns
    -------
    float
        In [0, 1]; lower is better.

    Raises
    ------
    ValueError
        For empty or NaN scores (the first offending row is named), ``tpr`` outside (0, 1], or an
        unknown ``positive``.
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1]; got {tpr!r}")
    is_positive, ranks = _labels_and_ranks(scores_in, scores_out, positive)
    positives = np.sort(ranks[is_positive])[::-1]
    # The first of the shares 1/n, 2/n, ... to reach tpr; comparing the quotients themselves
    # keeps 19 of 20 at 0.95, which a product with n may round up.
    shares = np.arange(1, len(positives) + 1) / len(positives)
    threshold = positives[np.searchsorted(shares, tpr)]
    return float(np.mean(ranks[~is_positive] >= threshold))


def _labels_and_ranks(
    scores_in: Any, scores_out: Any, positive: str
) -> tuple[np.ndarray, np.ndarray]:
    """Label the positives, and rank all scores so that higher speaks for the positive class.

    scikit-learn's metrics refuse infinite scores; ranks carry the same order and ties.
    """
    if positive not in _SIGN_OF_POSITIVE:
        raise ValueError(f"positive must be one of {list(_SIGN_OF_POSITIVE)}; got {positive!r}")
    inliers = _check_scores(scores_in, "scores_in")
    outliers = _check_scores(scores_out, "scores_out")
    is_inlier = np.repeat([True, False], [len(inliers), len(outliers)])
    sign = _SIGN_OF_POSITIVE[positive]
    ranks = rankdata(sign * np.concatenate([inliers, outliers]), method="dense")
    return (is_inlier if positive == "inlier" else ~is_inlier), ranks


def _check_scores(scores: Any, name: str) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"{name} must be one-dimensional with at least one score; got shape {values.shape}"
        )
    is_nan = np.isnan(values)
    if is_nan.any():
        raise ValueError(
            f"{name} contains NaN: row {int(np.argmax(is_nan))} is the first of "
            f"{int(is_nan.sum())}. Score a certain outlier -inf instead."
        )
    return values

"""Choosing detectors with scikit-learn's tools: folds that train on inliers only, and scorers."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, KFold
from sklearn.utils import check_consistent_length, check_random_state, indexable
from sklearn.utils.validation import _num_samples

from skgradood.metrics import auroc, average_precision, fpr_at_tpr
from skgradood.utils.scores import normality_scores
from skgradood.utils.validation import check_outlier_labels

_SCORERS = {
    "roc_auc": (1, auroc),
    "average_precision": (1, average_precision),
    "fpr95": (-1, fpr_at_tpr),
}


class InlierKFold(BaseCrossValidator):
    """K folds that train on inliers and test on the left-out inliers and on outliers.

    A detector learns from inliers alone, but how well it detects can be measured only where
    there are outliers. Every inlier is left out once, and every outlier is tested once.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to draw the folds at random rather than in the order of the rows.
    random_state : int, RandomState or None, default=None
        Seed of the shuffling; an int gives the same folds on every call.

    Notes
    -----
    Only folds are free of outliers. A search with scikit-learn's default ``refit=True`` fits its
    winner on all rows it was given: pass ``refit=False``, and fit a clone of the estimator with
    ``best_params_`` on inliers.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.model_selection import InlierKFold
    >>> y = np.array([1, 1, 1, 1, -1, -1])
    >>> for train, test in InlierKFold(n_splits=2).split(np.zeros((6, 1)), y):
    ...     print(train, test)
    [2 3] [0 1 4]
    [0 1] [2 3 5]
    """

    def __init__(self, n_splits: Any = 5, *, shuffle: bool = False, random_state: Any = None):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds; the arguments exist for compatibility and are ignored."""
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Generate the row numbers of each fold.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Only its length matters.
        y : array-like of shape (n,), optional
            +1 for inliers, -1 for outliers. Without it every row is taken for an inlier, and
            the folds are those of a plain K-fold.
        groups : None
            Ignored, exists for compatibility.

        Yields
        ------
        train : ndarray of int
            Rows of inliers.
        test : ndarray of int
            The left-out inliers and this fold's outliers, in ascending order.

        Raises
        ------
        ValueError
            If ``y`` holds anything but +1 and -1 (for 0/1 the message shows the mapping), if
            there are fewer inliers, or with ``y`` fewer outliers, than folds, or for an invalid
            parameter.
        """
        self._check_parameters()
        X, y = indexable(X, y)
        labels = np.ones(_num_samples(X), dtype=int) if y is None else check_outlier_labels(y)
        inliers, outliers = np.flatnonzero(labels == 1), np.flatnonzero(labels == -1)
        self._check_enough(inliers, "inliers (+1)")
        rng = check_random_state(self.random_state) if self.shuffle else None
        test_outliers: Any = [np.array([], dtype=int)] * self.n_splits
        folds = self._folds(inliers, rng)
        if y is not None:
            self._check_enough(outliers, "outliers (-1)")
            test_outliers = [test for _, test in self._folds(outliers, rng)]
        for (train, test), added in zip(folds, test_outliers, strict=True):
            yield train, np.sort(np.concatenate([test, added]))

    def _folds(
        self, rows: np.ndarray, rng: np.random.RandomState | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        k_fold = KFold(self.n_splits, shuffle=self.shuffle, random_state=rng)
        return [(rows[train], rows[test]) for train, test in k_fold.split(rows)]

    def _check_parameters(self) -> None:
        if not isinstance(self.n_splits, Integral) or self.n_splits < 2:
            raise ValueError(f"n_splits must be an integer of at least 2; got {self.n_splits!r}")
        if not self.shuffle and self.random_state is not None:
            raise ValueError(
                "random_state has no effect without shuffling: set shuffle=True, or leave "
                f"random_state=None; got {self.random_state!r}"
            )

    def _check_enough(self, rows: np.ndarray, kind: str) -> None:
        if len(rows) < self.n_splits:
            raise ValueError(
                f"each of the {self.n_splits} test folds needs at least one of the {kind}, but "
                f"there are {len(rows)}: lower n_splits or add some. (With y=None every row "
                "counts as an inlier and the folds are those of a plain K-fold.)"
            )


class _OutlierScorer:
    """A scikit-learn scorer: ``scorer(estimator, X, y)``, greater is better, y of +1 and -1."""

    def __init__(self, metric: str):
        self.metric = metric

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        labels = check_outlier_labels(y)
        if len(np.unique(labels)) < 2:
            raise ValueError(
                "this score needs both inliers (+1) and outliers (-1) among the tested rows; got "
                f"only {np.unique(labels).tolist()}. Cross-validate with InlierKFold, which puts "
                "both into every test fold, and do without scores of training folds, which hold "
                "inliers alone (return_train_score=False)."
            )
        scores = normality_scores(estimator, X)
        check_consistent_length(scores, labels)
        sign, metric = _SCORERS[self.metric]
        return sign * metric(scores[labels == 1], scores[labels == -1])

    def __repr__(self) -> str:
        return f"outlier_scorer({self.metric!r})"


def outlier_scorer(metric: str = "roc_auc") -> _OutlierScorer:
    """Make a scorer for ``GridSearchCV(scoring=...)`` and ``cross_validate(scoring=...)``.

    Parameters
    ----------
    metric : {"roc_auc", "average_precision", "fpr95"}, default="roc_auc"
        A function of :mod:`skgradood.metrics` with outliers as the positive class. "fpr95", the
        false-positive rate where 95 % of the outliers are detected, is negated, so that greater
        is better for each.

    Returns
    -------
    callable
        ``scorer(estimator, X, y) -> float`` with ``y`` of +1 (inlier) and -1 (outlier). It uses
        the estimator's ``score_samples``, or its ``decision_function`` where that is missing.

    Raises
    ------
    ValueError
        For an unknown metric.
    """
    if metric not in _SCORERS:
        raise ValueError(f"metric must be one of {list(_SCORERS)}; got {metric!r}")
    return _OutlierScorer(metric)

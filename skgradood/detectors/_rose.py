"""ROSE: how far the most abnormal layers lie above their means."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from skgradood.detectors._base import CONTAMINATION_CONSTRAINT, Detector, contamination_offset
from skgradood.detectors._columns import (
    MIN_SPREAD,
    column_names,
    dropped_columns,
    finite_rows,
)
from skgradood.detectors._marginals import NormalMarginal
from skgradood.utils.atomic import untouched_by_failure


class RoseDetector(Detector):
    """The detector of ROSE: per-layer statistics, normalised and rectified, in a power sum.

    A column l of the table is a layer's statistic f_l, such as gᵀF⁻¹g with a diagonal or EKFAC
    Fisher matrix. With its mean and standard deviation over the training rows,
    z_l = (f_l - mean_l) / std_l, the abnormality of a row is, as in the paper [1]_,

        (sum_l w_l max(z_l, 0)^p)^(1/p),

    and for ``power=inf`` the largest z_l, without the rectification: the score of the published
    code and of the published numbers. The two agree in the limit of large p wherever any z_l is
    positive; rows below the mean in every layer are equal under a finite power.

    Parameters
    ----------
    power : float in [1, inf], default=inf
        p, how much the most abnormal layers count against the others.
    weights : array-like of shape (d,), dict or None, default=None
        w_l, not negative; None is 1 for every layer. A dict goes from names of columns (numbers
        where X has no names) to weights, and columns that it does not name weigh 1. Under
        ``power=inf`` only whether a weight is 0 plays a part, as in the limit of large p: the
        layer is then left out.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training rows that ``predict`` calls outliers; "auto" is 0.05.

    Attributes
    ----------
    offset_ : float
        Rows that score below it are outliers.
    support_ : ndarray of shape (d,), bool
        The columns that vary on the training rows, by more than 1e-6 of their size, and are used, L
        in number. From columns that vary little, far from 0, subtract a constant first.
    dropped_features_ : list
        Names (or numbers, without names) of the columns that are not.
    location_, scale_ : ndarray of shape (L,)
        Mean and standard deviation of the columns.
    weights_ : ndarray of shape (L,)
        The weights w_l.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, if they had any.

    Notes
    -----
    Columns are taken as they are: statistics as in the paper, or their logarithms. They must not
    come from the rows that the Fisher matrix was estimated on (see the docs, "Published code").
    A row that holds NaN or infinity gets the score -inf; training rows that do are dropped with a
    warning.

    References
    ----------
    .. [1] J. Choi, C. Yoon, J. Bae, M. Kang, "Robust out-of-distribution detection on deep
       probabilistic generative models", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.detectors import RoseDetector
    >>> statistics = np.random.default_rng(0).chisquare(5, size=(200, 3))
    >>> RoseDetector().fit(statistics).predict([[5.0, 5.0, 5.0], [5.0, 90.0, 5.0]])
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict] = {
        "power": [Interval(Real, 1, None, closed="both")],
        "weights": ["array-like", Mapping, None],
        "contamination": CONTAMINATION_CONSTRAINT,
    }

    def __init__(
        self,
        *,
        power: float = np.inf,
        weights: Any = None,
        contamination: float | str = "auto",
    ):
        self.power = power
        self.weights = weights
        self.contamination = contamination

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> RoseDetector:
        """Estimate mean and standard deviation of every column from inliers.

        Parameters
        ----------
        X : array-like of shape (n, d)
            One row a sample, one column a layer.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For fewer than two finite rows, no column that varies, or weights that are negative,
            not finite, of another number, for unknown columns, or 0 wherever a column varies.
        """
        with untouched_by_failure(self):
            X = validate_data(
                self, X, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2
            )
            weights = self._checked_weights()
            X = finite_rows(self, X)
            self.support_ = NormalMarginal.relative_spread(X) > MIN_SPREAD
            self.dropped_features_ = dropped_columns(self, self.support_)
            self.weights_ = weights[self.support_]
            if not self.weights_.any():
                raise ValueError(
                    "the weights are 0 for every column that varies over the training rows; at "
                    "least one must be positive"
                )
            marginal = NormalMarginal.fit(X[:, self.support_])
            self.location_, self.scale_ = marginal.location, marginal.scale
            self.offset_ = contamination_offset(self._scores(X), self.contamination)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute minus the power sum of the layers' normalised statistics.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n,), float64
            In standard deviations, higher is more normal; -inf for rows with NaN or infinity.
        """
        X, finite = self._check_rows(X)
        scores = np.full(len(X), -np.inf)
        scores[finite] = self._scores(X[finite])
        return scores

    def layer_scores(self, X: Any) -> np.ndarray:
        """Compute how far each layer of each row lies above its mean.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n, d), float64
            z_l, in standard deviations. 0 in columns that are not used, NaN in rows that hold NaN
            or infinity.
        """
        X, finite = self._check_rows(X)
        scores = np.zeros(X.shape)
        scores[:, self.support_] = self._normalised(np.where(finite[:, None], X, 0))
        scores[~finite] = np.nan
        return scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _normalised(self, X: np.ndarray) -> np.ndarray:
        return NormalMarginal(self.location_, self.scale_).normal_score(X[:, self.support_])

    def _scores(self, X: np.ndarray) -> np.ndarray:
        z = self._normalised(X)
        if np.isinf(self.power):
            return -z[:, self.weights_ > 0].max(axis=1)
        rectified = np.maximum(z, 0)
        # In units of the largest, whose power cannot overflow.
        unit = np.maximum(rectified.max(axis=1), np.finfo(np.float64).tiny)
        power_sum = (self.weights_ * (rectified / unit[:, None]) ** self.power).sum(axis=1)
        return -unit * power_sum ** (1 / self.power)

    def _check_rows(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Validate rows to be scored, and tell which of them are finite."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False)
        return X, np.isfinite(X).all(axis=1)

    def _checked_weights(self) -> np.ndarray:
        names = column_names(self)
        if self.weights is None:
            return np.ones(len(names))
        if isinstance(self.weights, Mapping):
            unknown = [name for name in self.weights if name not in names]
            if unknown:
                raise ValueError(f"weights are given for unknown columns {unknown}; got {names}")
            weights = np.array([self.weights.get(name, 1.0) for name in names], dtype=np.float64)
        else:
            weights = np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (len(names),):
            raise ValueError(
                f"weights must have one value a column, shape ({len(names)},); got {weights.shape}"
            )
        if not (np.isfinite(weights).all() and weights.min() >= 0):
            raise ValueError(f"weights must be finite and not negative; got {weights}")
        return weights

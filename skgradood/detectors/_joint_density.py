"""The joint distribution of the layers' statistics as a detector."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skgradood.detectors._base import CONTAMINATION_CONSTRAINT, Detector, contamination_offset
from skgradood.detectors._columns import (
    MIN_SPREAD,
    column_names,
    dropped_columns,
    finite_rows,
)
from skgradood.detectors._dependence import DEPENDENCES, SHRINKAGES
from skgradood.detectors._marginals import CHI2_FITS, MARGINALS
from skgradood.detectors._tails import TAILS
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.warn import warn_user

_SMALLEST_POSITIVE = np.finfo(np.float64).tiny
# Squared norms are about as skewed as a chi-square variable with 2 degrees of freedom, or more.
_SQUARED_NORM_SKEWNESS = 2.0


class ChiSquareJointDensity(Detector):
    """Joint distribution of per-layer statistics, with a choice of margins and dependence.

    The squared norm of a layer's score is approximately a scaled chi-square variable, and its
    logarithm approximately normal [1]_ [2]_. The detector models each column by one marginal
    distribution, their dependence by a Gaussian copula or not at all, and scores a row by its
    joint density or by a p-value. The published detector is
    ``ChiSquareJointDensity(marginal="lognormal", dependence="independent")`` on squared norms.

    Parameters
    ----------
    marginal : {"normal", "lognormal", "chi2"}, default="normal"
        Distribution of a column. "normal": the columns as they are, for log squared norms
        (``GradientNormTransformer(output="log")``) and log-likelihoods. "lognormal" and "chi2"
        (f ~ s chi2_k with both s and k estimated): squared norms, which must not be negative.
    dependence : {"gaussian", "independent"}, default="gaussian"
        "gaussian": a Gaussian copula, that is, jointly normal normal scores; with normal or
        lognormal margins the joint distribution is the multivariate (log-)normal one.
        "independent": the columns are independent of each other.
    tail : {"density", "two-sided", "upper", "lower"}, default="density"
        What ``score_samples`` returns, in nats. "density": the joint log density. The others
        are log p-values. "two-sided": of the Mahalanobis distance of the normal scores, or under
        independence of Fisher's method on two-sided p-values. "upper" and "lower": of the sum
        of the normal scores (Stouffer's method, with the correlation in its variance), against
        large and against small values.
    covariance : {"ledoit_wolf", "oas", "empirical"}, default="ledoit_wolf"
        Estimator of the correlation of the normal scores. "ledoit_wolf" and "oas" shrink it
        towards the identity (by at least 1e-6) and work with fewer rows than columns.
    chi2_fit : {"log", "moments"}, default="log"
        How a chi-square margin is fitted. "log": to mean and variance of log f, psi_1(k/2) =
        Var log f, robust against heavy tails. "moments": s = Var f / 2 E f, k = 2 (E f)^2/Var f.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training rows that ``predict`` calls outliers; "auto" is 0.05. Training
        rows score higher than fresh ones where rows are few: use ConformalDetector where the
        false-positive rate matters.

    Attributes
    ----------
    offset_ : float
        Rows that score below it are outliers.
    support_ : ndarray of shape (d,), bool
        The columns that vary on the training rows, by more than 1e-6 of their size, and are
        modelled, L in number. From columns that vary little, far from 0, subtract a constant first.
    dropped_features_ : list
        Names (or numbers, without names) of the columns that are not.
    floor_ : ndarray of shape (d,)
        Values below it are raised to it. For squared norms the smallest positive training value
        where a column has zeros, else the smallest normal float64; -inf under "normal".
    location_ : ndarray of shape (L,)
        Mean of the columns ("normal") or their logarithms ("lognormal").
    scale_ : ndarray of shape (L,)
        Standard deviation likewise; under "chi2" the factor s.
    df_ : ndarray of shape (L,)
        Degrees of freedom k under "chi2", an effective dimension.
    correlation_, correlation_cholesky_ : ndarray of shape (L, L)
        Correlation of the normal scores and its lower Cholesky factor, under "gaussian".
    shrinkage_ : float
        Weight of the identity in ``correlation_``, under "gaussian".
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, if they had any.

    Notes
    -----
    A row to be scored that holds NaN or infinity gets the score -inf, a certain outlier; training
    rows that do are dropped with a warning. Squared norms of exactly zero (a layer that a row
    leaves untouched) are handled by ``floor_``.

    References
    ----------
    .. [1] S. Dauncey, C. Holmes, C. Williams, F. Falck, "On gradients of deep generative models
       for representation-invariant anomaly detection", ICLR workshop, 2023.
    .. [2] S. Dauncey, C. Holmes, C. Williams, F. Falck, "Approximations to the Fisher information
       metric of deep generative models for out-of-distribution detection", Transactions on
       Machine Learning Research, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.detectors import ChiSquareJointDensity
    >>> log_norms = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = ChiSquareJointDensity().fit(log_norms)
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 0.0, -9.0]])
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict] = {
        "marginal": [StrOptions(set(MARGINALS))],
        "dependence": [StrOptions(set(DEPENDENCES))],
        "tail": [StrOptions(set(TAILS))],
        "covariance": [StrOptions(set(SHRINKAGES))],
        "chi2_fit": [StrOptions(set(CHI2_FITS))],
        "contamination": CONTAMINATION_CONSTRAINT,
    }

    def __init__(
        self,
        *,
        marginal: str = "normal",
        dependence: str = "gaussian",
        tail: str = "density",
        covariance: str = "ledoit_wolf",
        chi2_fit: str = "log",
        contamination: float | str = "auto",
    ):
        self.marginal = marginal
        self.dependence = dependence
        self.tail = tail
        self.covariance = covariance
        self.chi2_fit = chi2_fit
        self.contamination = contamination

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> ChiSquareJointDensity:
        """Estimate the joint distribution from inliers.

        Parameters
        ----------
        X : array-like of shape (n, L)
            One row a sample, one column a layer.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For fewer than two finite rows, no column that varies, negative values where squared
            norms are expected, or a singular empirical covariance.
        """
        with untouched_by_failure(self):
            X = validate_data(
                self, X, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2
            )
            X = finite_rows(self, X)
            self._refuse_negative(X)
            self.floor_ = self._zero_floor(X)
            X = np.maximum(X, self.floor_)
            self.support_ = MARGINALS[self.marginal].relative_spread(X) > MIN_SPREAD
            self.dropped_features_ = dropped_columns(self, self.support_)
            columns = X[:, self.support_]
            fit_options: dict[str, dict[str, str]] = {
                "chi2": {"method": self.chi2_fit},
                "gaussian": {"covariance": self.covariance},
            }
            marginal = MARGINALS[self.marginal].fit(columns, **fit_options.get(self.marginal, {}))
            normal_scores = marginal.normal_score(columns)
            dependence = DEPENDENCES[self.dependence].fit(
                normal_scores, **fit_options.get(self.dependence, {})
            )
            if self.marginal == "normal":
                _warn_if_squared_norms(columns, normal_scores)
            # Fitted state is kept as plain arrays, so that it can be saved without pickling.
            for name, value in (vars(marginal) | vars(dependence)).items():
                setattr(self, f"{name}_", value)
            scores = TAILS[self.tail](columns, marginal, dependence)
            self.offset_ = contamination_offset(scores, self.contamination)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the joint log density or log p-value of each row.

        Parameters
        ----------
        X : array-like of shape (n, L)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n,), float64
            In nats, higher is more normal; -inf for rows with NaN or infinity.
        """
        X, finite = self._check_rows(X)
        scores = np.full(len(X), -np.inf)
        if finite.any():
            columns = np.maximum(X[finite], self.floor_)[:, self.support_]
            scores[finite] = TAILS[self.tail](columns, *self._distribution())
        return scores

    def layer_scores(self, X: Any) -> np.ndarray:
        """Compute how far each layer of each row lies from its own marginal distribution.

        Parameters
        ----------
        X : array-like of shape (n, L)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n, d), float64
            Normal scores: the standard normal values with the same tail probabilities, positive
            for large values. 0 in columns that are not modelled, NaN in rows that hold NaN or
            infinity.
        """
        X, finite = self._check_rows(X)
        scores = np.full(X.shape, np.nan)
        marginal, _ = self._distribution()
        columns = np.maximum(X[finite], self.floor_)[:, self.support_]
        modelled = np.zeros((len(columns), X.shape[1]))
        modelled[:, self.support_] = marginal.normal_score(columns)
        scores[finite] = modelled
        return scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = self._takes_squared_norms()
        return tags

    def _takes_squared_norms(self) -> bool:
        return self.marginal in MARGINALS and bool(MARGINALS[self.marginal].non_negative)

    def _distribution(self) -> tuple[Any, Any]:
        """Rebuild marginals and dependence from the fitted arrays."""
        strategies = MARGINALS[self.marginal], DEPENDENCES[self.dependence]
        return tuple(
            strategy(**{field.name: getattr(self, f"{field.name}_") for field in fields(strategy)})
            for strategy in strategies
        )

    def _check_rows(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Validate rows to be scored, and tell which of them are finite."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False)
        finite = np.isfinite(X).all(axis=1)
        self._refuse_negative(X[finite])
        return X, finite

    def _refuse_negative(self, X: np.ndarray) -> None:
        if not self._takes_squared_norms():
            return
        negative = (X < 0).any(axis=0)
        if negative.any():
            name = column_names(self)[int(np.argmax(negative))]
            raise ValueError(
                f"Negative values in data passed to ChiSquareJointDensity(marginal="
                f"{self.marginal!r}), which expects squared norms: column {name!r} has some. For "
                'log norms or log-likelihoods use marginal="normal".'
            )

    def _zero_floor(self, X: np.ndarray) -> np.ndarray:
        if not self._takes_squared_norms():
            return np.full(X.shape[1], -np.inf)
        smallest = np.where(X > 0, X, np.inf).min(axis=0)
        has_zeros = (X == 0).any(axis=0) & np.isfinite(smallest)
        return np.where(has_zeros, smallest, _SMALLEST_POSITIVE)


def _warn_if_squared_norms(columns: np.ndarray, standardised: np.ndarray) -> None:
    skewness = (standardised**3).mean(axis=0)
    if columns.min() >= 0 and np.median(skewness) > _SQUARED_NORM_SKEWNESS:
        warn_user(
            "the columns look like squared norms (non-negative, strongly skewed), but marginal="
            '"normal" expects their logarithms. Use marginal="lognormal" or "chi2", or '
            'GradientNormTransformer(output="log").'
        )

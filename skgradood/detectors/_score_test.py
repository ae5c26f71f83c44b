"""Rao's score test: the sum of the layers' quadratic forms against a chi-square distribution."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn

import numpy as np
from scipy.special import logsumexp, psi
from sklearn.base import _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skgradood.detectors import _gamma
from skgradood.detectors._base import CONTAMINATION_CONSTRAINT, Detector, contamination_offset
from skgradood.detectors._columns import MIN_SPREAD, column_names, finite_rows
from skgradood.detectors._marginals import CHI2_FITS
from skgradood.detectors._trend import Trend
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.warn import warn_user


class ScoreTestDetector(Detector):
    """Score test: the sum over layers of gᵀF⁻¹g, compared with s chi2_k, one-sided.

    For a sample x with the score g = ∇_θ log p_θ(x), whose covariance over the model's own samples
    is the Fisher matrix F, Rao's statistic [1]_ is T = gᵀF⁻¹g, with a mean of d, the number of
    parameters that F does not annul; where g is nearly normal, T is chi-square with d degrees of
    freedom. Taken layer by layer, F block-diagonal, T is the sum of the columns of the table.
    Large values are abnormal: the model would have to move far to make the sample likely.

    A group of B samples has the score U = sum g_i with the covariance B F, so that its statistic
    is T = (1/B) UᵀF⁻¹U, with the same distribution for every B. The factor 1/B belongs to the
    table: ``FisherPreconditioner(grouped=True)`` has it, and none is applied here. A table
    without it, such as squared norms of summed gradients, differs by a constant, which the scale
    of ``reference="fitted"`` absorbs.

    Parameters
    ----------
    input : {"quadratic_form", "log"}, default="quadratic_form"
        Whether columns hold the quadratic forms or their logarithms.
    reference : {"fitted", "chi2"}, default="fitted"
        "fitted": s chi2_k, with s and the effective degrees of freedom k estimated from mean and
        variance of log T over the training rows, which outliers among them move little. "chi2":
        chi2_df as it stands, for a well-specified model and an exact Fisher matrix.
    df : float or None, default=None
        Degrees of freedom, such as the sum of a preconditioner's ``effective_dim_``. Needed for
        ``reference="chi2"``; under "fitted" k is fixed to it, and only s is estimated.
    given : int, str or None, default=None
        Number or name of a column that is no quadratic form but a covariate, such as the
        log-likelihood. T is then divided by what it is on average at the same covariate (log T has
        a quadratic trend in it, fitted by least squares), so that a sample is compared with
        training rows of equal likelihood. A trend with as many coefficients as there are different
        training rows would leave nothing of T: three have a linear trend, two a constant. Needs
        ``reference="fitted"``.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the training rows that ``predict`` calls outliers; "auto" is 0.05.

    Attributes
    ----------
    trend_ : ndarray of shape (3,) or fewer, or None
        Coefficients of the trend of log T, in powers of the covariate with its range over the
        training rows mapped to [-1, 1].
    covariate_range_ : ndarray of shape (2,) or None
        That range.
    scale_ : float
        s; 1 for ``reference="chi2"``.
    df_ : float
        k, the effective degrees of freedom.
    offset_ : float
        Rows that score below it are outliers.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, if they had any.

    Notes
    -----
    A row that holds NaN or infinity gets the score -inf; training rows that do are left out with a
    warning. Quadratic forms are not negative: training rows with a sum that is not positive are
    left out of the fit, with a warning where it is negative, and such rows have p = 1.

    References
    ----------
    .. [1] C. R. Rao, "Large sample tests of statistical hypotheses concerning several parameters
       with applications to problems of estimation", Mathematical Proceedings of the Cambridge
       Philosophical Society, 1948.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.detectors import ScoreTestDetector
    >>> forms = np.random.default_rng(0).chisquare(5, size=(500, 3))
    >>> detector = ScoreTestDetector(reference="chi2", df=15).fit(forms)
    >>> detector.p_values([[5.0, 5.0, 5.0], [5.0, 40.0, 5.0]]).round(5)
    array([4.5142e-01, 1.0000e-05])
    """

    _parameter_constraints: ClassVar[dict] = {
        "input": [StrOptions({"quadratic_form", "log"})],
        "reference": [StrOptions({"fitted", "chi2"})],
        "df": [Interval(Real, 0, None, closed="neither"), None],
        "given": [Integral, str, None],
        "contamination": CONTAMINATION_CONSTRAINT,
    }

    def __init__(
        self,
        *,
        input: str = "quadratic_form",
        reference: str = "fitted",
        df: float | None = None,
        given: int | str | None = None,
        contamination: float | str = "auto",
    ):
        self.input = input
        self.reference = reference
        self.df = df
        self.given = given
        self.contamination = contamination

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> ScoreTestDetector:
        """Estimate the reference distribution, and the threshold, from inliers.

        Parameters
        ----------
        X : array-like of shape (n, d)
            One row a sample or group, one column a layer.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For fewer than two finite rows, sums of which none is positive or that do not vary (by
            more than 1e-6 of their size, and not only with the covariate),
            ``reference="chi2"`` without ``df`` or with ``given``, or a column ``given`` that is
            not there.
        """
        with untouched_by_failure(self):
            X = validate_data(
                self, X, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2
            )
            rows = finite_rows(self, X)
            self._fit_trend(rows)
            log_sums = self._log_statistic(rows)
            if self.reference == "chi2":
                if self.df is None:
                    raise ValueError(
                        'reference="chi2" needs df, the degrees of freedom: the number of '
                        "parameters, or of dimensions in which the Fisher matrix does not vanish. "
                        'reference="fitted" estimates it.'
                    )
                self.scale_, self.df_ = 1.0, float(self.df)
            else:
                self.scale_, self.df_ = self._fitted_reference(log_sums)
            self.offset_ = contamination_offset(self._log_p(log_sums), self.contamination)
        return self

    def statistic(self, X: Any) -> np.ndarray:
        """Compute the test's statistic.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n,), float64
            T, the sum of the quadratic forms, relative to its trend if there is one; inf for rows
            with NaN or infinity.
        """
        X, finite = self._check_rows(X)
        statistic = np.full(len(X), np.inf)
        with np.errstate(over="ignore"):  # infinity is what it should be
            statistic[finite] = np.exp(self._log_statistic(X[finite]))
        return statistic

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the log p-value against large values of the statistic.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n,), float64
            In nats, at most 0 and falling with T however large T is; -inf for rows with NaN or
            infinity.
        """
        X, finite = self._check_rows(X)
        scores = np.full(len(X), -np.inf)
        scores[finite] = self._log_p(self._log_statistic(X[finite]))
        return scores

    def p_values(self, X: Any) -> np.ndarray:
        """Compute the p-value against large values of the statistic.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows; values may be NaN or infinite.

        Returns
        -------
        ndarray of shape (n,), float64
            Small for outliers; 0 where its logarithm is below about -745.
        """
        return np.exp(self.score_samples(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _check_rows(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Validate rows to be scored, and tell which of them are finite."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False)
        return X, np.isfinite(X).all(axis=1)

    def _fit_trend(self, X: np.ndarray) -> None:
        self.trend_, self.covariate_range_ = None, None
        if self.given is None:
            return
        if self.reference == "chi2":
            raise ValueError(
                'given= divides the statistic by its trend, so that reference="chi2" does not '
                'apply; use reference="fitted"'
            )
        forms, covariate = self._divided(X)
        log_sums = self._log_sums(forms)
        positive = np.isfinite(log_sums)
        if positive.any():
            trend = Trend.fit(covariate[positive], log_sums[positive])
            self.trend_, self.covariate_range_ = trend.coefficients, trend.covariate_range

    def _log_statistic(self, X: np.ndarray) -> np.ndarray:
        """Compute log T, (n,), relative to its trend."""
        if self.trend_ is None or self.covariate_range_ is None:
            return self._log_sums(X)
        forms, covariate = self._divided(X)
        return self._log_sums(forms) - Trend(self.trend_, self.covariate_range_)(covariate)

    def _divided(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quadratic forms, and the covariate."""
        names = column_names(self)
        position: Any = names.index(self.given) if self.given in names else self.given
        n_columns = X.shape[1]
        if isinstance(position, str) or not -n_columns <= position < n_columns:
            raise ValueError(
                f"given={self.given!r} is none of the {n_columns} columns; expected a number, or "
                f"one of the names {names[:5]}{'...' if len(names) > 5 else ''}"
            )
        if n_columns == 1:
            raise ValueError("given= leaves no column of quadratic forms; X has n_features=1")
        return np.delete(X, position, axis=1), X[:, position]

    def _log_sums(self, X: np.ndarray) -> np.ndarray:
        """Compute log T, (n,): -inf where T is not positive."""
        if self.input == "log":
            return logsumexp(X, axis=1)
        # In units of the largest, so that no sum overflows.
        unit = np.maximum(np.abs(X).max(axis=1, initial=0.0), np.finfo(np.float64).tiny)
        sums = (X / unit[:, None]).sum(axis=1)
        with np.errstate(divide="ignore"):  # the logarithm of zero is meant
            return np.log(np.maximum(sums, 0)) + np.log(unit)

    def _log_p(self, log_sums: np.ndarray) -> np.ndarray:
        log_halves = log_sums - np.log(2 * self.scale_)
        return _gamma.log_sf(np.array(0.5 * self.df_), log_halves)

    def _fitted_reference(self, log_sums: np.ndarray) -> tuple[float, float]:
        """Scale and degrees of freedom of s chi2_k from positive statistics."""
        positive = log_sums[np.isfinite(log_sums)]
        if len(positive) < len(log_sums):
            self._complain_of_sums(len(positive), len(log_sums))
        if positive.std() < MIN_SPREAD:
            self._complain_of_spread(positive)
        unit = positive.max()
        if self.df is not None:
            return float(np.exp(positive.mean() - psi(0.5 * self.df) - np.log(2))), float(self.df)
        scale, df = CHI2_FITS["log"](np.exp(positive - unit)[:, None])
        return float(np.exp(np.log(scale[0]) + unit)), float(df[0])

    def _complain_of_spread(self, log_sums: np.ndarray) -> NoReturn:
        if self.trend_ is not None and len(self.trend_) > 1:
            raise ValueError(
                f"the sum of the columns is a function of the column given={self.given!r} over the "
                f"{len(log_sums)} training rows; relative to it there is nothing to estimate. Use "
                "given=None, or more samples that differ from each other."
            )
        raise ValueError(
            f"the sum of the columns does not vary by more than {MIN_SPREAD:g} of its size over "
            f"the {len(log_sums)} training rows; there is nothing to estimate. At least 2 must be "
            "different: check that the rows are different samples."
        )

    def _complain_of_sums(self, n_positive: int, n: int) -> None:
        message = (
            f"{n - n_positive} of {n} training rows have a sum of quadratic forms that is not "
            'positive. If the columns hold logarithms, use ScoreTestDetector(input="log").'
        )
        if n_positive < 2:
            raise ValueError(message)
        warn_user(message)

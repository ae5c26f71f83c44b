"""Valid p-values and a guaranteed false-positive rate for any detector."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.utils import Tags, _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted

from skgradood.detectors._base import Detector
from skgradood.utils.scores import normality_scores
from skgradood.utils.warn import warn_user


class ConformalDetector(Detector):
    """Calibrate a detector by split conformal inference.

    The scores of inliers that the detector was not fitted on are the yardstick: a new sample's
    p-value is the rank of its score among theirs, (1 + #{calibration scores <= s}) / (n + 1)
    [1]_. Whatever the detector, the probability that an inlier gets a p-value of at most alpha
    is at most alpha, on average over calibration sets.

    Parameters
    ----------
    detector : estimator
        Detector, density estimator or Pipeline with ``fit`` and ``score_samples`` or
        ``decision_function``.
    alpha : float in (0, 1), default=0.05
        The false-positive rate: ``predict`` calls a sample an outlier where p <= alpha.
    calibration : float in (0, 1) or "prefit", default=0.2
        Share of the samples given to ``fit`` that is set apart for calibration, at random; a
        clone of the detector is fitted on the rest. "prefit": the detector is fitted already,
        is used as it is, and all samples are for calibration; it must not have seen them.
    random_state : int, RandomState or None, default=None
        Seed of the split, and of every ``random_state=None`` inside the detector; with None
        those stay as they are.

    Attributes
    ----------
    detector_ : estimator
        The fitted detector.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the calibration samples, ascending.
    offset_ : float
        Samples that score below it have p <= alpha; -inf if there are too few calibration
        samples for any p-value to be that small.
    n_features_in_ : int
        As seen by ``detector_``, if it has it.
    feature_names_in_ : ndarray
        As seen by ``detector_``, if it has it.

    References
    ----------
    .. [1] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with conformal
       p-values", Annals of Statistics, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.detectors import ChiSquareJointDensity, ConformalDetector
    >>> log_norms = np.random.default_rng(0).normal(size=(500, 3))
    >>> detector = ConformalDetector(ChiSquareJointDensity(), random_state=0).fit(log_norms)
    >>> detector.p_values([[9.0, 0.0, -9.0]]).round(4)
    array([0.0099])
    """

    _parameter_constraints: ClassVar[dict] = {
        "detector": [
            HasMethods(["fit", "score_samples"]),
            HasMethods(["fit", "decision_function"]),
        ],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "calibration": [Interval(Real, 0, 1, closed="neither"), StrOptions({"prefit"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        detector: Any,
        *,
        alpha: float = 0.05,
        calibration: float | str = 0.2,
        random_state: Any = None,
    ):
        self.detector = detector
        self.alpha = alpha
        self.calibration = calibration
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> ConformalDetector:
        """Fit the detector and calibrate it, or only calibrate a fitted one.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Inliers: rows, images, or whatever else the detector takes.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are fewer than two samples to split.
        sklearn.exceptions.NotFittedError
            If ``calibration="prefit"`` and the detector is not fitted.
        """
        if self.calibration == "prefit":
            check_is_fitted(self.detector)
            detector, calibration_samples = self.detector, X
        else:
            rng = check_random_state(self.random_state)
            (X,) = indexable(X)
            training, held_out = self._split(_num_samples(X), rng)
            detector = clone(self.detector)
            if self.random_state is not None:
                _seed(detector, rng)
            detector.fit(_safe_indexing(X, training), None)  # FrozenEstimator asks for a y
            calibration_samples = _safe_indexing(X, held_out)
        scores = np.sort(normality_scores(detector, calibration_samples))
        self._warn_if_too_few(len(scores))
        self.detector_ = detector
        self.calibration_scores_ = scores
        self.offset_ = self._threshold(scores)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Score samples with the fitted detector.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher is more normal.
        """
        check_is_fitted(self)
        return normality_scores(self.detector_, X)

    def p_values(self, X: Any) -> np.ndarray:
        """Compute conformal p-values.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,), float64
            Multiples of 1 / (n_calibration + 1); small for outliers.
        """
        return self.p_values_of_scores(self.score_samples(X))

    def p_values_of_scores(self, scores: Any) -> np.ndarray:
        """Compute conformal p-values of scores that are known already.

        Parameters
        ----------
        scores : array-like of shape (n,)
            What `score_samples` returned, or else the detector: NaN counts as -inf, as there.

        Returns
        -------
        ndarray of shape (n,), float64
            As `p_values`.
        """
        check_is_fitted(self)
        scores = np.asarray(scores, dtype=np.float64)
        scores = np.where(np.isnan(scores), -np.inf, scores)  # NaN would sort above all
        n_at_most = np.searchsorted(self.calibration_scores_, scores, side="right")
        return _p_value(n_at_most, len(self.calibration_scores_))

    @property
    def n_features_in_(self) -> int:
        return self._fitted_detector("n_features_in_").n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        return self._fitted_detector("feature_names_in_").feature_names_in_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "detector_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.detector).input_tags
        return tags

    def _fitted_detector(self, attribute: str) -> Any:
        if "detector_" not in vars(self):
            raise AttributeError(f"{attribute!r} is known once ConformalDetector is fitted")
        return self.detector_

    def _split(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        if n < 2:
            raise ValueError(
                f"splitting into training and calibration needs at least 2 samples; got "
                f'n_samples={n}. With calibration="prefit" one is enough.'
            )
        n_calibration = min(int(np.ceil(self.calibration * n)), n - 1)
        order = rng.permutation(n)
        # In the order of the data: a detector may depend on it, and memory maps read faster.
        return np.sort(order[n_calibration:]), np.sort(order[:n_calibration])

    def _warn_if_too_few(self, n: int) -> None:
        if _p_value(0, n) > self.alpha:
            warn_user(
                f"with {n} calibration samples no p-value can be as small as alpha={self.alpha}, "
                f"so nothing will ever be flagged; at least {np.ceil(1 / self.alpha) - 1:.10g} "
                "are needed."
            )

    def _threshold(self, scores: np.ndarray) -> float:
        """Find the score from which on p > alpha.

        With m of the n + 1 possible p-values at most alpha, p > alpha holds where at least m
        calibration scores are at most s, that is, from the m-th smallest of them on.
        """
        m = int(np.sum(_p_value(np.arange(len(scores) + 1), len(scores)) <= self.alpha))
        return float(scores[m - 1]) if m else -np.inf


def _p_value(n_at_most: Any, n_calibration: int) -> Any:
    return (1 + n_at_most) / (n_calibration + 1)


def _seed(estimator: Any, rng: np.random.RandomState) -> None:
    """Give a seed to every ``random_state=None`` of an estimator and the estimators inside it."""
    unseeded = [
        name
        for name, value in sorted(estimator.get_params(deep=True).items())
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    ]
    estimator.set_params(**{name: int(rng.randint(2**31 - 1)) for name in unseeded})

"""Several detectors joined into one, through what each of them gives to inliers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.pipeline import FeatureUnion
from sklearn.utils import Bunch, Tags, _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _num_samples, check_is_fitted

from skgradood.detectors._base import CONTAMINATION_CONSTRAINT, Detector, contamination_offset
from skgradood.detectors._combination import COMBINATIONS
from skgradood.detectors._reference import ScoreReference
from skgradood.detectors._shared_steps import fit_detectors, score_detectors
from skgradood.utils.atomic import untouched_by_failure
from skgradood.utils.warn import warn_user


class CombinedDetector(Detector, _BaseComposition):
    """Combine the evidence of several detectors, or Pipelines, over the same samples.

    Scores of different detectors have no common unit. Each detector's scores of inliers that it
    was not fitted on turn its later scores into one-sided p-values, small for abnormal samples,
    and these are combined by a method for combining tests: what one detector misses, another may
    see [1]_. Beyond the reference scores their tail is extrapolated, so that far outliers rank by
    how far they lie.

    Pipelines that begin with the same steps (of the same class, with equal parameters) share
    them: one transformer is fitted, and transforms samples once, for all.

    Parameters
    ----------
    detectors : list of (str, estimator)
        Names and detectors, density estimators or Pipelines with ``fit`` and ``score_samples`` or
        ``decision_function``; "drop" instead of one leaves it out. They are cloned and fitted in
        ``fit``; what is inside ``sklearn.frozen.FrozenEstimator`` is used as it is.
    method : {"fisher", "brown", "cauchy", "max"}, default="fisher"
        How K p-values become one.

        - "fisher": -2 sum log p against chi2_2K; exact for independent detectors. The p-values
          of positively dependent ones come out too small; their order is Brown's.
        - "brown": the same with the correlation of the log p-values, estimated on the reference
          samples, in its mean and variance; calibrated for dependent detectors.
        - "cauchy": the mean of cot(pi p) against a Cauchy distribution; valid for small p-values
          whatever the dependence, and led by the strongest detector.
        - "max": the largest of the detectors' evidence, that is the smallest p-value, as
          1 - (1 - min p)^K; exact for independent detectors, too large for dependent ones.
    reference : float in (0, 1) or "prefit", default=0.5
        Share of the samples given to ``fit`` that is set apart, at random, as reference; the
        detectors are fitted on the rest. "prefit": the detectors are fitted already and used as
        they are, and all samples are for reference; the detectors must not have seen them.
    random_state : int, RandomState or None, default=None
        Seed of the division, and of every ``random_state=None`` inside the detectors; with None
        those stay as they are.
    n_jobs : int or None, default=None
        Detectors that are fitted and scored at the same time, in processes of their own, to
        which models are copied.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of samples that ``predict`` calls outliers. "auto": 0.05 of the reference samples.
        A number: of all samples given to ``fit``, which are scored once more for that; as the
        detectors were fitted on a part of them, the share is larger on fresh samples.

    Attributes
    ----------
    detectors_ : list of K estimators
        The fitted detectors.
    detector_names_ : list of str
        Their names.
    named_detectors_ : Bunch
        The fitted detectors by name.
    reference_scores_ : list of K ndarrays
        Finite scores of the reference samples, ascending.
    correlation_ : ndarray of shape (K, K)
        Of the detectors' log p-values on the reference samples.
    offset_ : float
        Samples that score below it are outliers.
    n_features_in_ : int
        As seen by the first detector, if it has it.
    feature_names_in_ : ndarray
        As seen by the first detector, if it has it.

    See Also
    --------
    ConformalDetector : Around this one, for a false-positive rate that holds on fresh samples.

    References
    ----------
    .. [1] F. Bergamin, P.-A. Mattei, J. D. Havtorn, H. Senetaire, H. Schmutz, L. Maaloe,
       S. Hauberg, J. Frellsen, "Model-agnostic out-of-distribution detection using combined
       statistical tests", AISTATS, 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skgradood.detectors import ChiSquareJointDensity, CombinedDetector, RoseDetector
    >>> log_norms = np.random.default_rng(0).normal(size=(500, 3))
    >>> members = [("density", ChiSquareJointDensity()), ("rose", RoseDetector())]
    >>> detector = CombinedDetector(members, method="brown", random_state=0).fit(log_norms)
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 0.0, -9.0]])
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict] = {
        "detectors": [list],
        "method": [StrOptions(set(COMBINATIONS))],
        "reference": [Interval(Real, 0, 1, closed="neither"), StrOptions({"prefit"})],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "contamination": CONTAMINATION_CONSTRAINT,
    }

    def __init__(
        self,
        detectors: list[tuple[str, Any]],
        *,
        method: str = "fisher",
        reference: float | str = 0.5,
        random_state: Any = None,
        n_jobs: int | None = None,
        contamination: float | str = "auto",
    ):
        self.detectors = detectors
        self.method = method
        self.reference = reference
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.contamination = contamination

    # The detectors validate their own parameters when they are fitted.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> CombinedDetector:
        """Fit the detectors, and take their scores of the reference samples.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Inliers: rows, images, or whatever else all the detectors take.
        y : None
            Ignored, exists for compatibility.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For names that are not unique, no detector, fewer than two samples to divide, or a
            detector whose scores of the reference samples are all NaN or infinite.
        TypeError
            If something is not a detector.
        sklearn.exceptions.NotFittedError
            If ``reference="prefit"`` and a detector is not fitted.
        """
        names, detectors = self._members()
        if self.reference == "prefit":
            for detector in detectors:
                check_is_fitted(detector)
            reference_samples = X
        else:
            rng = check_random_state(self.random_state)
            (X,) = indexable(X)
            training, held_out = self._split(_num_samples(X), rng)
            seed = None if self.random_state is None else int(rng.randint(2**31 - 1))
            detectors = fit_detectors(
                detectors, _safe_indexing(X, training), seed=seed, n_jobs=self.n_jobs
            )
            reference_samples = _safe_indexing(X, held_out)
        scores = score_detectors(detectors, reference_samples, n_jobs=self.n_jobs)
        with untouched_by_failure(self):
            self.detectors_ = detectors
            self.detector_names_ = names
            self.reference_scores_ = [
                _finite_scores(name, values) for name, values in zip(names, scores, strict=True)
            ]
            log_p = self._log_p_of_scores(scores)
            self.correlation_ = _correlation(log_p)
            if self.contamination == "auto":
                self.offset_ = contamination_offset(self._combined(log_p), self.contamination)
            else:
                self.offset_ = contamination_offset(self.score_samples(X), self.contamination)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the logarithm of the combined p-value.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,), float64
            In nats, at most 0; higher is more normal. -inf where a detector's score is -inf or
            NaN, finite elsewhere.
        """
        return self._combined(self.member_scores(X))

    def p_values(self, X: Any) -> np.ndarray:
        """Compute the combined p-value.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n,), float64
            Small for outliers; 0 where its logarithm is below about -745.
        """
        return np.exp(self.score_samples(X))

    def member_scores(self, X: Any) -> np.ndarray:
        """Compute every detector's own evidence, to see which of them objects to a sample.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples.

        Returns
        -------
        ndarray of shape (n, K), float64
            Log p-values in nats, a column a detector, in the order of ``detector_names_``.
        """
        check_is_fitted(self)
        return self._log_p_of_scores(score_detectors(self.detectors_, X, n_jobs=self.n_jobs))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get parameters, with ``deep`` those of the detectors as well.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the detectors by their names, and their parameters.

        Returns
        -------
        dict
        """
        return self._get_params("detectors", deep=deep)

    def set_params(self, **params: Any) -> CombinedDetector:
        """Set parameters: of this detector, ``name``, or ``name__parameter`` of a member.

        Parameters
        ----------
        **params : object
            New values; a detector's name replaces it, and "drop" leaves it out.

        Returns
        -------
        self
        """
        self._set_params("detectors", **params)
        return self

    @property
    def named_detectors_(self) -> Bunch:
        check_is_fitted(self)
        return Bunch(**dict(zip(self.detector_names_, self.detectors_, strict=True)))

    @property
    def n_features_in_(self) -> int:
        return self._first_fitted("n_features_in_").n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        return self._first_fitted("feature_names_in_").feature_names_in_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "detectors_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        members = [get_tags(member).input_tags for _, member in self._named_members()]
        tags.input_tags.allow_nan = all(member.allow_nan for member in members)
        tags.input_tags.positive_only = any(member.positive_only for member in members)
        tags.input_tags.three_d_array = all(member.three_d_array for member in members)
        return tags

    def _sk_visual_block_(self) -> Any:
        # Side by side: the block of a public class, as that of a block itself has moved about.
        return FeatureUnion(self.detectors)._sk_visual_block_()

    def _first_fitted(self, attribute: str) -> Any:
        if "detectors_" not in vars(self):
            raise AttributeError(f"{attribute!r} is known once CombinedDetector is fitted")
        return self.detectors_[0]

    def _named_members(self) -> list[tuple[str, Any]]:
        return [
            (name, detector)
            for name, detector in self.detectors
            if not (isinstance(detector, str) and detector == "drop")
        ]

    def _members(self) -> tuple[list[str], list[Any]]:
        """Names and detectors, checked, without those that are dropped."""
        if not all(_is_pair(item) for item in self.detectors):
            raise TypeError(
                f"detectors must be a list of pairs (name, detector); got {self.detectors!r}"
            )
        self._validate_names([name for name, _ in self.detectors])
        members = self._named_members()
        if not members:
            raise ValueError(
                "CombinedDetector needs at least one detector: detectors is empty, or all are "
                '"drop".'
            )
        for name, detector in members:
            scores = hasattr(detector, "score_samples") or hasattr(detector, "decision_function")
            if isinstance(detector, type) or not (scores and hasattr(detector, "fit")):
                raise TypeError(
                    f"{name!r} must be a detector with fit and score_samples or "
                    f"decision_function, a Pipeline that ends in one, or 'drop'; got {detector!r}"
                )
        return [name for name, _ in members], [detector for _, detector in members]

    def _split(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        if n < 2:
            raise ValueError(
                f"dividing into training and reference needs at least 2 samples; got n_samples={n}"
                '. With reference="prefit" one is enough.'
            )
        n_reference = min(int(np.ceil(self.reference * n)), n - 1)
        order = rng.permutation(n)
        # In the order of the data: a detector may depend on it, and memory maps read faster.
        return np.sort(order[n_reference:]), np.sort(order[:n_reference])

    def _log_p_of_scores(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        return np.column_stack(
            [
                ScoreReference(reference).log_p(values)
                for reference, values in zip(self.reference_scores_, scores, strict=True)
            ]
        )

    def _combined(self, log_p: np.ndarray) -> np.ndarray:
        options = {"correlation": self.correlation_} if self.method == "brown" else {}
        return COMBINATIONS[self.method](log_p, **options)


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)


def _finite_scores(name: str, scores: np.ndarray) -> np.ndarray:
    finite = np.isfinite(scores)
    if not finite.any():
        raise ValueError(
            f"detector {name!r} gives no finite score to any of the {len(scores)} reference "
            "samples, so there is nothing to compare new scores with."
        )
    if not finite.all():
        warn_user(
            f"detector {name!r} scores {int((~finite).sum())} of {len(scores)} reference samples "
            "as NaN or infinite; they were left out of its reference."
        )
    return np.sort(scores[finite])


def _correlation(log_p: np.ndarray) -> np.ndarray:
    """The correlation of log p-values over the rows where all are finite; the identity of few."""
    n_tests = log_p.shape[1]
    finite = log_p[np.isfinite(log_p).all(axis=1)]
    centred = finite - finite.mean(axis=0) if len(finite) else np.zeros((1, n_tests))
    deviations = np.sqrt((centred**2).sum(axis=0))
    standardised = centred / np.where(deviations > 0, deviations, 1)
    correlation = standardised.T @ standardised
    np.fill_diagonal(correlation, 1.0)
    return correlation

"""Conformal calibration: exact agreement of its outputs, and validity on fresh data."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgradood.detectors import ChiSquareJointDensity, ConformalDetector
from skgradood.model_selection import InlierKFold, outlier_scorer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3))


def first_values(samples):
    return np.array([np.ravel(sample)[0] for sample in samples], dtype=float)


class FirstColumn(OutlierMixin, BaseEstimator):
    """Nothing to learn: the first value of a sample is its score. Counts what it was fitted on."""

    def fit(self, X, y=None):
        self.n_seen_ = len(X)
        return self

    def score_samples(self, X):
        return first_values(X)


class DecisionOnly(BaseEstimator):
    def fit(self, X, y=None):
        return self

    def decision_function(self, X):
        return first_values(X)


@pytest.mark.filterwarnings("ignore:with .* calibration samples")
@parametrize_with_checks(
    [
        ConformalDetector(IsolationForest(n_estimators=5)),
        ConformalDetector(OneClassSVM(), alpha=0.1, calibration=0.5),
        ConformalDetector(make_pipeline(StandardScaler(), OneClassSVM())),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def calibrated_on(scores, alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        detector = ConformalDetector(FirstColumn().fit(scores), alpha=alpha, calibration="prefit")
        return detector.fit(np.reshape(scores, (-1, 1)))


values = st.one_of(st.sampled_from([-np.inf, 0.0, 0.5, 1.0, np.inf, np.nan]), st.floats())


@given(
    calibration=st.lists(values, min_size=1, max_size=40),
    test=st.lists(values, min_size=1, max_size=20),
    alpha=st.sampled_from([0.01, 0.05, 0.1, 1 / 3, 0.5, 0.95]),
)
def test_predict_p_values_and_decisions_agree_in_every_case(calibration, test, alpha):
    """Ties, infinities and alphas that are exactly a possible p-value included."""
    detector = calibrated_on(calibration, alpha)
    samples = np.reshape(test + calibration, (-1, 1))
    p_values = detector.p_values(samples)
    decision = detector.decision_function(samples)

    known = np.nan_to_num(calibration, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    scores = np.nan_to_num(samples[:, 0], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    by_hand = [(1 + sum(known <= s)) / (len(known) + 1) for s in scores]
    np.testing.assert_array_equal(p_values, by_hand)
    np.testing.assert_array_equal(detector.p_values_of_scores(samples[:, 0]), by_hand)
    np.testing.assert_array_equal(detector.predict(samples), np.where(p_values <= alpha, -1, 1))
    assert not np.isnan(decision).any()
    np.testing.assert_array_equal(decision < 0, p_values <= alpha)


def test_p_value_of_exactly_alpha_is_an_outlier():
    detector = calibrated_on(np.arange(19.0), 0.05)
    assert detector.p_values([[-1.0]]) == 0.05
    assert detector.predict([[-1.0]]) == -1
    assert detector.predict([[0.0]]) == 1


def test_false_positive_rate_on_fresh_data():
    """With n calibration scores the rate is Beta distributed around alpha; both are bounded."""
    rng = np.random.default_rng(1)
    detector = ConformalDetector(ChiSquareJointDensity(), alpha=0.1, random_state=0)
    detector.fit(rng.normal(size=(5000, 3)))
    flagged = np.sum(detector.predict(rng.normal(size=(20_000, 3))) == -1)
    spread = 0.1 * 0.9 * (1 / 1000 + 1 / 20_000)  # of calibration and of test
    assert abs(flagged / 20_000 - 0.1) < 4 * np.sqrt(spread)


def test_p_values_are_valid_on_average_over_calibration_sets():
    """P(p <= alpha) is floor(alpha (n + 1)) / (n + 1) exactly, however bad the detector is."""
    repetitions, n = 4000, 29
    rng = np.random.default_rng(2)
    p_values = np.array(
        [
            calibrated_on(rng.standard_cauchy(n), 0.1).p_values(rng.standard_cauchy((1, 1)))[0]
            for _ in range(repetitions)
        ]
    )
    for alpha in (1 / 30, 0.1, 0.5):
        expected = np.floor(alpha * 30 + 1e-9) / 30
        low, high = binom.interval(0.999, repetitions, expected)
        assert low <= np.sum(p_values <= alpha + 1e-12) <= high


def test_p_values_of_inliers_are_nearly_uniform_and_small_for_outliers():
    rng = np.random.default_rng(3)
    detector = ConformalDetector(GaussianMixture(), calibration=0.5, random_state=0)
    detector.fit(rng.normal(size=(6000, 2)))
    assert kstest(detector.p_values(rng.normal(size=(300, 2))), "uniform").pvalue > 0.01
    assert (detector.p_values(rng.normal(8, 1, size=(50, 2))) <= 1 / 3000).all()


@pytest.mark.parametrize(("calibration", "n_held_out"), [(0.2, 60), (0.5, 150), (0.999, 299)])
def test_calibration_samples_are_held_out(calibration, n_held_out):
    marked = np.arange(300.0)[:, None]
    detector = ConformalDetector(FirstColumn(), calibration=calibration, random_state=0)
    detector.fit(marked)
    assert detector.detector_.n_seen_ == 300 - n_held_out
    assert len(np.unique(detector.calibration_scores_)) == n_held_out
    assert (np.diff(detector.calibration_scores_) > 0).all()


def test_the_users_detector_is_not_touched():
    forest = IsolationForest(n_estimators=5)
    detector = ConformalDetector(forest, random_state=0).fit(X)
    assert not hasattr(forest, "estimators_")
    assert forest.random_state is None
    assert detector.detector_ is not forest


def test_random_state_seeds_the_split_and_what_is_unseeded_inside():
    pipeline = make_pipeline(StandardScaler(), IsolationForest(n_estimators=5))
    first, second = (ConformalDetector(pipeline, random_state=7).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.p_values(X), second.p_values(X))
    seeded = ConformalDetector(IsolationForest(n_estimators=5, random_state=3), random_state=7)
    assert seeded.fit(X).detector_.random_state == 3


def test_prefit_uses_the_detector_as_it_is():
    fitted = ChiSquareJointDensity().fit(X)
    detector = ConformalDetector(fitted, calibration="prefit").fit(X[:100])
    assert detector.detector_ is fitted
    np.testing.assert_array_equal(
        detector.calibration_scores_, np.sort(fitted.score_samples(X[:100]))
    )
    with pytest.raises(NotFittedError):
        ConformalDetector(ChiSquareJointDensity(), calibration="prefit").fit(X)


def test_a_frozen_detector_is_calibrated_but_not_fitted_again():
    fitted = ChiSquareJointDensity().fit(X)
    detector = ConformalDetector(FrozenEstimator(fitted), random_state=0).fit(X + 1)
    np.testing.assert_array_equal(detector.score_samples(X), fitted.score_samples(X))


def test_scores_and_features_come_from_the_detector():
    frame = pd.DataFrame(X, columns=list("abc"))
    detector = ConformalDetector(ChiSquareJointDensity(), random_state=0)
    for attribute in ("n_features_in_", "feature_names_in_"):
        with pytest.raises(AttributeError, match=f"'{attribute}' is known once"):
            getattr(detector, attribute)
    detector.fit(frame)
    assert detector.n_features_in_ == 3
    assert detector.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(
        detector.score_samples(frame), detector.detector_.score_samples(frame)
    )


CONTAINERS = {
    "rows": X,
    "images": RNG.normal(size=(300, 2, 4, 4)),
    "groups of images": RNG.normal(size=(300, 5, 1, 4, 4)),
    "a list of images": list(RNG.normal(size=(300, 4, 4))),
    "a tensor": torch.randn(300, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_whatever_the_detector_takes(container):
    samples = CONTAINERS[container]
    detector = ConformalDetector(FirstColumn(), random_state=0).fit(samples)
    third_smallest = detector.calibration_scores_[2]  # 3 of 61 is the last below alpha
    np.testing.assert_array_equal(
        detector.predict(samples), np.where(first_values(samples) < third_smallest, -1, 1)
    )


def test_images_through_a_pipeline():
    images = RNG.normal(size=(300, 1, 4, 4))
    pipeline = make_pipeline(
        FunctionTransformer(lambda images: images.reshape(len(images), -1)), OneClassSVM()
    )
    detector = ConformalDetector(pipeline, random_state=0).fit(images)
    assert (detector.predict(images + 5) == -1).all()


def test_a_detector_with_only_a_decision_function():
    detector = ConformalDetector(DecisionOnly(), random_state=0).fit(X)
    assert detector.predict([[-9.0, 0, 0], [0.0, 0, 0]]).tolist() == [-1, 1]


def test_clone_pickle_and_search():
    detector = ConformalDetector(ChiSquareJointDensity(), random_state=0)
    restored = pickle.loads(pickle.dumps(clone(detector).fit(X)))
    np.testing.assert_array_equal(restored.p_values(X), detector.fit(X).p_values(X))
    both, y = np.concatenate([X, X[:60] + 4]), np.repeat([1, -1], [300, 60])
    search = GridSearchCV(
        detector,
        {"detector__tail": ["two-sided", "lower"]},
        cv=InlierKFold(3),
        scoring=outlier_scorer("roc_auc"),
    )
    assert search.fit(both, y).best_params_ == {"detector__tail": "two-sided"}


def test_too_few_calibration_samples_are_announced():
    with pytest.warns(UserWarning, match=r"18 calibration samples.*at least 19 are needed"):
        detector = ConformalDetector(FirstColumn().fit(X), calibration="prefit").fit(X[:18])
    assert detector.offset_ == -np.inf
    assert (detector.predict([[-1e9, 0, 0], [-np.inf, 0, 0]]) == 1).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConformalDetector(FirstColumn().fit(X), calibration="prefit").fit(X[:19])


@pytest.mark.parametrize(("alpha", "told"), [(1e-7, "9999999"), (1e-300, r"1e\+300")])
def test_how_many_calibration_samples_are_needed_is_told_in_short(alpha, told):
    detector = ConformalDetector(FirstColumn().fit(X), alpha=alpha, calibration="prefit")
    with pytest.warns(UserWarning, match=f"at least {told} are needed"):
        detector.fit(X)


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match=r"at least 2 samples; got n_samples=1.*prefit"):
        ConformalDetector(FirstColumn()).fit(X[:1])


@pytest.mark.parametrize(
    ("option", "value"),
    [("alpha", 0.0), ("alpha", 1.0), ("calibration", 1.0), ("calibration", "split")],
)
def test_bad_options_are_explained(option, value):
    with pytest.raises(ValueError, match=f"The '{option}' parameter .* must be"):
        ConformalDetector(FirstColumn(), **{option: value}).fit(X)


def test_something_that_is_not_a_detector():
    with pytest.raises(ValueError, match=r"The 'detector' parameter .* must be an object"):
        ConformalDetector(StandardScaler()).fit(X)
    with pytest.raises(NotFittedError):
        ConformalDetector(FirstColumn()).p_values(X)

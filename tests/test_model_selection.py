"""Folds that train on inliers only, and scorers, in scikit-learn's own tools."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.detectors import ChiSquareJointDensity
from skgradood.metrics import average_precision, fpr_at_tpr
from skgradood.model_selection import InlierKFold, outlier_scorer

METRICS = ["roc_auc", "average_precision", "fpr95"]


@pytest.fixture
def labelled():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(60, 3)), rng.normal(2.5, 2, size=(20, 3))])
    y = np.repeat([1, -1], [60, 20])
    order = rng.permutation(80)
    return X[order], y[order]


class DecisionOnly(BaseEstimator):
    """A detector without score_samples; the first column is how normal a row is."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def decision_function(self, X):
        return X[:, 0]


@given(
    y=st.lists(st.sampled_from([1, 1, 1, -1]), min_size=8, max_size=40),
    n_splits=st.integers(2, 4),
    shuffle=st.booleans(),
)
def test_folds_train_on_inliers_and_test_everything_once(y, n_splits, shuffle):
    y = np.array(y + [1, -1] * n_splits)
    cv = InlierKFold(n_splits, shuffle=shuffle, random_state=3 if shuffle else None)
    tested = []
    for train, test in cv.split(np.zeros((len(y), 2)), y):
        assert (y[train] == 1).all()
        assert not set(train) & set(test)
        assert set(train) | set(test) >= set(np.flatnonzero(y == 1))
        assert {1, -1} == set(y[test])
        assert (np.diff(test) > 0).all()
        tested.append(test)
    assert len(tested) == n_splits
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(len(y)))


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "random_state": 4}])
def test_without_labels_it_is_a_plain_k_fold(options):
    X = np.zeros((17, 1))
    expected = KFold(4, **options).split(X)
    for ours, theirs in zip(InlierKFold(4, **options).split(X), expected, strict=True):
        for rows, other_rows in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(rows, other_rows)


def test_an_integer_seed_repeats_the_folds_and_a_generator_does_not():
    y = np.repeat([1, -1], [50, 10])

    def first_test(cv):
        return next(cv.split(y, y))[1].tolist()

    seeded = InlierKFold(5, shuffle=True, random_state=0)
    assert first_test(seeded) == first_test(seeded)
    assert first_test(seeded) != first_test(InlierKFold(5, shuffle=True, random_state=1))
    drawn = InlierKFold(5, shuffle=True, random_state=np.random.RandomState(0))
    assert first_test(drawn) != first_test(drawn)


def test_repr_and_number_of_splits():
    cv = InlierKFold(3, shuffle=True, random_state=1)
    assert repr(cv) == "InlierKFold(n_splits=3, random_state=1, shuffle=True)"
    assert cv.get_n_splits() == 3


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.repeat([0, 1], 10), r"np.where\(y == 1, -1, 1\)"),
        (np.repeat([1, -1], [4, 10]), r"5 test folds.*inliers.*there are 4"),
        (np.repeat([1, -1], [10, 4]), r"5 test folds.*outliers.*there are 4"),
        (np.ones(10), r"outliers.*there are 0.*y=None"),
    ],
)
def test_labels_that_cannot_be_folded(y, message):
    with pytest.raises(ValueError, match=message):
        next(InlierKFold(5).split(np.zeros((len(y), 1)), y))


def test_samples_and_labels_must_agree_in_number():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(InlierKFold(2).split(np.zeros((9, 1)), np.repeat([1, -1], 4)))


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (InlierKFold(1), "n_splits must be an integer of at least 2; got 1"),
        (InlierKFold(2.5), "n_splits must be an integer"),
        (InlierKFold(2, random_state=0), "set shuffle=True"),
    ],
)
def test_parameters_are_checked_when_splitting(cv, message):
    with pytest.raises(ValueError, match=message):
        next(cv.split(np.zeros((10, 1))))


def test_scorer_equals_scikit_learn_and_the_metrics(labelled):
    X, y = labelled
    model = OneClassSVM(gamma=0.1).fit(X[y == 1])
    scores = model.score_samples(X)
    expected = {
        "roc_auc": roc_auc_score(y, scores),
        "average_precision": average_precision(scores[y == 1], scores[y == -1]),
        "fpr95": -fpr_at_tpr(scores[y == 1], scores[y == -1]),
    }
    for metric, value in expected.items():
        assert outlier_scorer(metric)(model, X, y) == pytest.approx(value)


@pytest.mark.parametrize("metric", METRICS)
def test_scorer_is_greater_for_the_better_detector(metric, labelled):
    X, y = labelled
    X = np.column_stack([y + 0.1 * X[:, 0], X])  # the label leaks into the first column
    good, bad = DecisionOnly().fit(X), DecisionOnly().fit(X)
    bad.decision_function = lambda X: -X[:, 0]
    assert outlier_scorer(metric)(good, X, y) > outlier_scorer(metric)(bad, X, y)


@pytest.mark.parametrize("metric", METRICS)
def test_scorer_survives_pickling(metric, labelled):
    X, y = labelled
    scorer = pickle.loads(pickle.dumps(outlier_scorer(metric)))
    model = IsolationForest(n_estimators=5, random_state=0).fit(X)
    assert scorer(model, X, y) == outlier_scorer(metric)(model, X, y)
    assert repr(scorer) == f"outlier_scorer({metric!r})"


def test_scorer_ranks_rows_that_cannot_be_scored_as_outliers(labelled):
    X, y = labelled
    X = X.copy()
    X[y == -1] = np.nan
    model = ChiSquareJointDensity().fit(X[y == 1])
    assert outlier_scorer()(model, X, y) == 1.0


def test_scorer_explains_what_it_needs(labelled):
    X, y = labelled
    model = GaussianMixture().fit(X)
    with pytest.raises(ValueError, match="InlierKFold"):
        outlier_scorer()(model, X, np.ones(len(X)))
    options = {"cv": InlierKFold(3), "scoring": outlier_scorer(), "error_score": "raise"}
    with pytest.raises(ValueError, match="return_train_score=False"):
        cross_validate(model, X, y, return_train_score=True, **options)
    with pytest.raises(ValueError, match=r"np.where\(y == 1, -1, 1\)"):
        outlier_scorer()(model, X, (y == -1).astype(int))
    with pytest.raises(TypeError, match=r"StandardScaler.*score_samples, decision_function"):
        outlier_scorer()(StandardScaler().fit(X), X, y)
    with pytest.raises(ValueError, match=r"\['roc_auc', 'average_precision', 'fpr95'\]"):
        outlier_scorer("auc")


def test_grid_search_over_features_and_detectors(labelled):
    X, y = labelled
    pipeline = make_pipeline(StandardScaler(), ChiSquareJointDensity())
    grid = [
        {"chisquarejointdensity__dependence": ["gaussian", "independent"]},
        {
            "chisquarejointdensity": [
                OneClassSVM(),
                IsolationForest(n_estimators=5, random_state=0),
                DecisionOnly(),
            ]
        },
    ]
    search = GridSearchCV(
        pipeline,
        grid,
        scoring={metric: outlier_scorer(metric) for metric in METRICS},
        refit="roc_auc",
        cv=InlierKFold(4, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(X, y)
    assert search.cv_results_["mean_test_roc_auc"].shape == (5,)
    assert search.best_score_ > 0.8
    assert (search.cv_results_["mean_test_fpr95"] <= 0).all()


def test_cross_validation_fits_inliers_only(labelled):
    X, y = labelled
    result = cross_validate(
        ChiSquareJointDensity(),
        X,
        y,
        cv=InlierKFold(3),
        scoring=outlier_scorer("roc_auc"),
        return_estimator=True,
        return_indices=True,
    )
    for estimator, rows in zip(result["estimator"], result["indices"]["train"], strict=True):
        np.testing.assert_allclose(estimator.location_, X[rows].mean(axis=0))
        assert (y[rows] == 1).all()


def test_scorer_compares_the_numbers_of_samples_and_labels(labelled):
    X, y = labelled
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        outlier_scorer()(ChiSquareJointDensity().fit(X[y == 1]), X, y[1:])

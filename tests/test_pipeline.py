"""Pipelines from samples to verdicts, and the search among them."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_estimator

from skgradood import (
    ChiSquareJointDensity,
    CombinedDetector,
    ConformalDetector,
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
    ScoreTestDetector,
    make_detector,
)
from skgradood.detectors import recommended_detector
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.models import VAE, DiagonalGaussian


@pytest.fixture
def labelled_rows():
    rng = np.random.default_rng(0)
    inliers = rng.normal(size=(90, 3))
    outliers = rng.normal(size=(30, 3)) * 4
    return np.concatenate([inliers, outliers]), np.repeat([1, -1], [90, 30])


def row_net():
    return GenerativeNet(DiagonalGaussian, max_epochs=2, lr=1e-2, random_state=0)


def first_columns(table):
    return np.asarray(table)[:, :-1]


def last_column(table):
    return np.asarray(table)[:, -1:]


@pytest.mark.parametrize("data", ["images", "rows"])
def test_the_recommended_detector_is_the_documented_pipeline(labelled_rows, data):
    X, y = labelled_rows
    net = row_net().fit(X[y == 1])
    detector = make_detector(FrozenEstimator(net), data=data, random_state=0).fit(X[y == 1])
    features = FisherPreconditioner(
        FrozenEstimator(net),
        approximation="ekfac",
        power=2,
        output="log",
        log_likelihood_column=True,
        random_state=0,
    ).fit(X[y == 1])
    table = features.transform(X[y == 1])
    statistics, likelihood = FunctionTransformer(first_columns), FunctionTransformer(last_column)
    members = [
        ("sum", make_pipeline(statistics, ScoreTestDetector(input="log"))),
        ("joint", make_pipeline(statistics, ChiSquareJointDensity())),
    ]
    if data == "images":
        typicality = make_pipeline(likelihood, ChiSquareJointDensity(tail="two-sided"))
        conditional = ScoreTestDetector(input="log", given="log_likelihood")
        members += [("conditional", conditional), ("typicality", typicality)]
    else:
        small = make_pipeline(likelihood, ChiSquareJointDensity(tail="lower"))
        members.append(("small", small))
    by_hand = CombinedDetector(members, random_state=0)
    by_hand.fit(pd.DataFrame(table, columns=features.get_feature_names_out()))
    by_hand_scores = by_hand.score_samples(
        pd.DataFrame(features.transform(X), columns=features.get_feature_names_out())
    )
    scores = detector.score_samples(X)
    np.testing.assert_allclose(scores, by_hand_scores, rtol=1e-8)
    assert np.median(scores[y == -1]) < np.quantile(scores[y == 1], 0.05)


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [
        (GenerativeNet(DiagonalGaussian), "rows"),
        (FrozenEstimator(GenerativeNet(DiagonalGaussian)), "rows"),
        (DiagonalGaussian(input_shape=(3,)), "rows"),
        (GenerativeNet(functools.partial(DiagonalGaussian)), "rows"),
        (
            GenerativeNet(lambda input_shape: DiagonalGaussian(input_shape), max_epochs=1).fit(
                np.ones((4, 3))
            ),
            "rows",
        ),
        (GenerativeNet(VAE), "images"),
        (FrozenEstimator(GenerativeNet(VAE)), "images"),
        (torch.nn.Linear(3, 1), "images"),
    ],
)
def test_the_model_says_what_the_data_are(estimator, kind):
    def members(**options):
        return [name for name, _ in make_detector(estimator, **options)["detector"].detectors]

    other = {"rows": "images", "images": "rows"}[kind]
    assert members() == members(data=kind) != members(data=other)


def test_conformal_decisions_around_an_unfitted_pipeline(labelled_rows):
    X, y = labelled_rows
    detector = ConformalDetector(make_detector(row_net()), alpha=0.1, random_state=0)
    detector.fit(X[y == 1])
    verdicts = detector.predict(X)
    np.testing.assert_array_equal(verdicts == -1, detector.p_values(X) <= 0.1)
    assert (verdicts[y == -1] == -1).mean() > 0.5


def test_grid_search_over_features_and_detectors_fits_each_feature_set_once_a_fold(
    labelled_rows, tmp_path, monkeypatch
):
    X, y = labelled_rows
    fitted_layers = []
    original = GradientNormTransformer.fit

    def counting_fit(self, X, y=None):
        fitted_layers.append(self.layers)
        return original(self, X, y)

    monkeypatch.setattr(GradientNormTransformer, "fit", counting_fit)
    pipeline = Pipeline(
        [
            ("features", GradientNormTransformer(row_net(), output="log")),
            ("scale", StandardScaler()),
            ("detector", ChiSquareJointDensity(marginal="normal")),
        ],
        memory=str(tmp_path),
    )
    layers = ["parameter", "channel"]
    grid = [
        {"features__layers": layers, "detector__dependence": ["independent", "gaussian"]},
        {
            "features__layers": layers,
            "detector": [OneClassSVM(nu=0.1), IsolationForest(n_estimators=10, random_state=0)],
        },
    ]
    search = GridSearchCV(
        pipeline,
        grid,
        scoring=outlier_scorer("roc_auc"),
        cv=InlierKFold(n_splits=3),
        refit=False,
        error_score="raise",
    )
    search.fit(X, y)
    assert sorted(fitted_layers) == ["channel"] * 3 + ["parameter"] * 3
    assert search.best_score_ > 0.8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("data", ["images", "rows"])
@pytest.mark.parametrize("n", range(4, 9))
def test_the_recommended_detector_is_fitted_on_few_rows(n, data):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        detector = recommended_detector(data=data, random_state=seed).fit(rng.normal(size=(n, 6)))
        assert np.isfinite(detector.score_samples(rng.normal(size=(50, 6)))).all()


def test_cross_validation_of_the_recommended_detector(labelled_rows):
    X, y = labelled_rows
    scores = cross_val_score(
        make_detector(row_net()), X, y, cv=InlierKFold(3), scoring=outlier_scorer("roc_auc")
    )
    assert scores.shape == (3,)
    assert scores.min() > 0.7


def failed_checks(estimator):
    results = check_estimator(estimator, on_fail=None)
    return {result["check_name"] for result in results if result["status"] == "failed"}


def test_the_recommended_pipeline_fails_only_what_every_pipeline_of_scikit_learn_fails():
    """A Pipeline replaces its steps in fit and has no offset_, which some checks object to."""
    of_scikit_learn = make_pipeline(StandardScaler(), IsolationForest(n_estimators=5))
    ours = failed_checks(make_detector(clone(row_net()), random_state=0))
    assert ours <= failed_checks(of_scikit_learn)

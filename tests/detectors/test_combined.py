"""Detectors combined: p-values against a reference of their own, joined into one verdict."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, combine_pvalues
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.detectors import (
    ChiSquareJointDensity,
    CombinedDetector,
    ConformalDetector,
    RoseDetector,
)
from skgradood.metrics import auroc
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.persistence import load, save

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3))
METHODS = ["fisher", "brown", "cauchy", "max"]


class Column(OutlierMixin, BaseEstimator):
    """Nothing to learn: minus a value of each sample is its score. Remembers its samples."""

    def __init__(self, column=0):
        self.column = column

    def fit(self, X, y=None):
        self.seen_ = np.asarray(X)
        return self

    def score_samples(self, X):
        return -np.array([np.ravel(sample)[self.column] for sample in X], dtype=float)


def columns(n=3):
    return [(f"column{i}", Column(i)) for i in range(n)]


@pytest.mark.parametrize("method", ["fisher", "max"])
def test_scores_are_the_combination_of_ranks(method):
    detector = CombinedDetector(columns(), method=method, reference="prefit")
    detector.set_params(detectors=[(name, column.fit(X)) for name, column in columns()]).fit(X)
    # Rows of the reference that are not in its upper tail, where p is not a rank.
    inner = X[(np.quantile(X, 0.8, axis=0) > X).all(axis=1)][:50]
    p = np.array([[(np.sum(v < X[:, i]) + 0.5) / len(X) for i, v in enumerate(x)] for x in inner])
    theirs = {"fisher": "fisher", "max": "tippett"}[method]
    expected = [combine_pvalues(row, theirs).pvalue for row in p]
    np.testing.assert_allclose(detector.member_scores(inner), np.log(p), rtol=1e-9)
    np.testing.assert_allclose(detector.p_values(inner), expected, rtol=1e-8)


@pytest.mark.parametrize("reference", [0.25, 0.5, 0.9])
def test_the_reference_is_set_apart(reference):
    detector = CombinedDetector(columns(2), reference=reference, random_state=0).fit(X)
    n_reference = int(np.ceil(reference * len(X)))
    for i, member in enumerate(detector.detectors_):
        assert len(member.seen_) == len(X) - n_reference
        expected = set(X[:, i]) - set(member.seen_[:, i])
        assert set(-detector.reference_scores_[i]) == expected
    other = CombinedDetector(columns(2), reference=reference, random_state=1).fit(X)
    assert not np.array_equal(other.reference_scores_[0], detector.reference_scores_[0])


@pytest.mark.parametrize(("method", "rho"), [("fisher", 0.0), ("max", 0.0), ("brown", 0.7)])
def test_fresh_inliers_have_the_p_values_they_should(method, rho):
    rng = np.random.default_rng(1)
    factor = np.linalg.cholesky(np.full((3, 3), rho) + (1 - rho) * np.eye(3))
    detector = CombinedDetector(columns(), method=method, random_state=0)
    detector.fit(rng.normal(size=(20_000, 3)) @ factor.T)
    p = detector.p_values(rng.normal(size=(50_000, 3)) @ factor.T)
    for alpha in (0.1, 0.01):
        assert np.mean(p <= alpha) == pytest.approx(alpha, rel=0.15)
    if method == "brown":
        fisher = detector.set_params(method="fisher").p_values(
            rng.normal(size=(50_000, 3)) @ factor.T
        )
        assert np.mean(fisher <= 0.01) > 0.02
        np.testing.assert_allclose(detector.correlation_[0, 1], 0.62, atol=0.05)


def test_what_one_member_misses_another_sees():
    """Outliers of two kinds: each detector ranks one kind as inliers."""
    rng = np.random.default_rng(2)
    inliers, outliers = rng.normal(size=(1000, 2)), rng.normal(size=(400, 2))
    outliers[:200, 0] += 5
    outliers[200:, 1] += 5
    detector = CombinedDetector(columns(2), random_state=0).fit(rng.normal(size=(2000, 2)))
    combined = auroc(detector.score_samples(inliers), detector.score_samples(outliers))
    for member in detector.detectors_:
        assert auroc(member.score_samples(inliers), member.score_samples(outliers)) < 0.8
    assert combined > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_far_outliers_rank_however_far(method):
    members = [("a", Column()), ("svm", OneClassSVM()), ("density", ChiSquareJointDensity())]
    detector = CombinedDetector(members, method=method, random_state=0).fit(X)
    far = np.zeros((400, 3))
    far[:, 0] = np.geomspace(3, 1e12, 400)
    scores = detector.score_samples(far)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_member_that_is_certain_settles_it(method):
    detector = CombinedDetector(columns(), method=method, random_state=0).fit(X)
    rows = np.zeros((4, 3))
    rows[0, 1], rows[1, 2] = np.nan, np.inf
    rows[2, 1] = -np.inf
    scores = detector.score_samples(rows)
    assert scores[:2].tolist() == [-np.inf, -np.inf]
    assert np.isfinite(scores[2:]).all()
    assert detector.predict(rows).tolist() == [-1, -1, 1, 1]
    assert detector.p_values(rows)[0] == 0


def test_reference_scores_that_are_not_finite_are_left_out():
    train = X.copy()
    train[::10, 0] = np.nan
    with pytest.warns(UserWarning, match="'column0' scores 2[0-9] of 200 reference samples"):
        detector = CombinedDetector(columns(), random_state=0).fit(train)
    assert all(np.isfinite(scores).all() for scores in detector.reference_scores_)
    assert np.isfinite(detector.correlation_).all()
    assert np.isfinite(detector.offset_)
    train[:, 0] = np.nan
    before = dict(vars(detector))
    with pytest.raises(ValueError, match="'column0' gives no finite score to any of the 200"):
        detector.fit(train)
    assert all(vars(detector)[name] is value for name, value in before.items())


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(METHODS))
def test_the_order_of_the_members_does_not_matter(order, method):
    members = [
        ("rose", RoseDetector()),
        ("scaled", make_pipeline(StandardScaler(), RoseDetector(power=1))),
        ("mixture", GaussianMixture(2)),
        ("too", make_pipeline(StandardScaler(), ChiSquareJointDensity())),
    ]
    expected = CombinedDetector(members, method=method, random_state=3).fit(X)
    permuted = CombinedDetector([members[i] for i in order], method=method, random_state=3).fit(X)
    np.testing.assert_allclose(
        permuted.member_scores(X), expected.member_scores(X)[:, order], rtol=1e-12
    )
    np.testing.assert_allclose(permuted.score_samples(X), expected.score_samples(X), rtol=1e-9)


def test_parameters_by_name_and_members_dropped_and_replaced():
    detector = CombinedDetector([*columns(2), ("pipe", make_pipeline(StandardScaler(), Column()))])
    detector.set_params(column1__column=2, pipe__column__column=1, method="max")
    assert detector.get_params()["column1__column"] == 2
    assert detector.get_params()["pipe"].steps[1][1].column == 1
    detector.set_params(column0="drop", pipe=Column(1))
    copy = clone(detector).set_params(random_state=0).fit(X)
    assert copy.detector_names_ == ["column1", "pipe"]
    assert copy.named_detectors_.pipe is copy.detectors_[1]
    assert copy.member_scores(X).shape == (400, 2)
    expected = CombinedDetector(
        [("a", Column(2)), ("b", Column(1))], method="max", random_state=0
    ).fit(X)
    np.testing.assert_array_equal(copy.score_samples(X), expected.score_samples(X))
    assert not hasattr(detector.detectors[1][1], "seen_")


def test_grid_search_over_members():
    labelled = np.vstack([X, X[:60] + np.array([6, 0, 0])])
    y = np.repeat([1, -1], [400, 60])
    search = GridSearchCV(
        CombinedDetector([("a", Column(1)), ("b", RoseDetector())], random_state=0),
        {"a__column": [0, 1], "method": ["fisher", "cauchy"], "b": [RoseDetector(), "drop"]},
        cv=InlierKFold(2),
        scoring=outlier_scorer("roc_auc"),
    ).fit(labelled, y)
    assert search.best_params_["a__column"] == 0
    assert search.best_score_ > 0.95


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"detectors": [("a", Column()), ("a", Column())]}, ValueError, "not unique"),
        ({"detectors": [("method", Column())]}, ValueError, "conflict"),
        ({"detectors": [("a__b", Column())]}, ValueError, "must not contain __"),
        ({"detectors": []}, ValueError, "at least one detector"),
        ({"detectors": [("a", "drop")]}, ValueError, "at least one detector"),
        ({"detectors": [Column()]}, TypeError, "pairs"),
        ({"detectors": [("a", StandardScaler())]}, TypeError, "'a' must be a detector"),
        ({"detectors": [("a", Column)]}, TypeError, "'a' must be a detector"),
        ({"method": "stouffer"}, ValueError, "'brown'.*'stouffer'"),
        ({"reference": 1.0}, ValueError, "reference"),
        ({"contamination": 0.9}, ValueError, "contamination"),
    ],
)
def test_what_is_refused(options, error, message):
    detector = CombinedDetector(columns()).set_params(**options)
    with pytest.raises(error, match=message):
        detector.fit(X)


def test_before_fit_and_too_few_samples():
    detector = CombinedDetector(columns())
    with pytest.raises(NotFittedError):
        detector.score_samples(X)
    assert not hasattr(detector, "n_features_in_")
    with pytest.raises(ValueError, match="n_samples=1"):
        detector.fit(X[:1])
    for method in METHODS:
        two = CombinedDetector(columns(), method=method).fit(X[:2])
        assert np.isfinite(two.score_samples(X)).all()


def test_contamination():
    detector = CombinedDetector(columns(), random_state=0).fit(X)
    assert np.mean(detector.predict(np.random.default_rng(5).normal(size=(4000, 3))) == -1) < 0.12
    members = [("forest", IsolationForest(n_estimators=20))]
    detector = CombinedDetector(members, contamination=0.2, random_state=0).fit(X)
    assert np.sum(detector.predict(X) == -1) == 80


def test_prefit_and_frozen_members_are_used_as_they_are():
    fitted = RoseDetector().fit(X[:100])
    prefit = CombinedDetector([("rose", fitted)], reference="prefit").fit(X[100:])
    assert prefit.detectors_[0] is fitted
    assert len(prefit.reference_scores_[0]) == 300
    with pytest.raises(NotFittedError):
        CombinedDetector([("rose", RoseDetector())], reference="prefit").fit(X)
    pipeline = make_pipeline(StandardScaler(), RoseDetector()).fit(X[:100] * 3)
    members = [("frozen", FrozenEstimator(pipeline)), ("fresh", RoseDetector())]
    detector = CombinedDetector(members, random_state=0).fit(X[100:])
    assert detector.detectors_[0].estimator is pipeline
    np.testing.assert_array_equal(
        detector.detectors_[0].score_samples(X), pipeline.score_samples(X)
    )


def test_images_groups_frames_and_lists():
    images = RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8)
    detector = CombinedDetector(columns(2), random_state=0).fit(images)
    assert detector.score_samples(images).shape == (60,)
    assert CombinedDetector(columns(2)).fit(X.reshape(80, 5, 3)).predict(X[None, :5]).shape == (1,)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    members = [("rose", RoseDetector(weights={"a": 2})), ("density", ChiSquareJointDensity())]
    detector = CombinedDetector(members, random_state=0).fit(frame)
    assert detector.feature_names_in_.tolist() == ["a", "b", "c"]
    assert detector.n_features_in_ == 3
    with pytest.raises(ValueError, match="feature names"):
        detector.score_samples(frame[["b", "a", "c"]])


def test_copies_files_and_wrappers(tmp_path):
    members = [
        ("a", make_pipeline(StandardScaler(), RoseDetector())),
        ("b", make_pipeline(StandardScaler(), ChiSquareJointDensity(tail="two-sided"))),
        ("svm", OneClassSVM()),
    ]
    detector = CombinedDetector(members, method="brown", random_state=0).fit(X)
    expected = detector.score_samples(X)
    save(detector, tmp_path / "combined.skg")
    loaded = load(tmp_path / "combined.skg")
    for copy in (loaded, pickle.loads(pickle.dumps(detector))):
        np.testing.assert_array_equal(copy.score_samples(X), expected)
        # What the members share, the copies share.
        assert copy.detectors_[0][0] is copy.detectors_[1][0]
    assert repr(loaded) == repr(detector)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conformal = ConformalDetector(clone(detector), random_state=0).fit(X)
    far = conformal.p_values([[9.0, 9.0, 9.0]])
    assert far[0] == pytest.approx(1 / 81)


def test_fisher_of_far_members_is_the_chi_square_of_their_sum():
    detector = CombinedDetector(columns(2), random_state=0).fit(X)
    log_p = detector.member_scores([[4.0, 5.0, 0.0]])
    expected = chi2(4).logsf(-2 * log_p.sum())
    assert detector.score_samples([[4.0, 5.0, 0.0]])[0] == pytest.approx(expected, rel=1e-9)


def test_members_stand_side_by_side_in_a_notebook():
    members = [
        ("rose", RoseDetector()),
        ("scaled", make_pipeline(StandardScaler(), ChiSquareJointDensity())),
        ("none", "drop"),
    ]
    html = CombinedDetector(members)._repr_html_()
    assert html.count('class="sk-parallel-item"') == 3
    assert "sk-parallel-item" not in CombinedDetector([])._repr_html_().split("</style>")[-1]

"""Pipelines that begin alike: their common steps are fitted once and run once a call."""

from __future__ import annotations

from collections import Counter

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skgradood import GradientNormTransformer
from skgradood.detectors import ChiSquareJointDensity, CombinedDetector, RoseDetector
from skgradood.models import DiagonalGaussian

X = np.random.default_rng(0).normal(size=(100, 3))
CALLS: Counter = Counter()


@pytest.fixture(autouse=True)
def no_calls_yet():
    CALLS.clear()


class Counted(TransformerMixin, BaseEstimator):
    """Scales, and counts how often it is fitted and transforms, by its label."""

    def __init__(self, label="features", scale=1.0, option=None):
        self.label = label
        self.scale = scale
        self.option = option

    def fit(self, X, y=None):
        CALLS[self.label, "fit"] += 1
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        CALLS[self.label, "transform"] += 1
        return self.scale * np.asarray(X)

    def get_feature_names_out(self, input_features=None):
        return np.array([f"{self.label}{i}" for i in range(self.n_features_in_)], dtype=object)


def combine(*members, **options):
    named = [(f"member{i}", member) for i, member in enumerate(members)]
    return CombinedDetector(named, random_state=0, **options)


def three_members(**options):
    return combine(
        make_pipeline(Counted(**options), RoseDetector()),
        make_pipeline(Counted(**options), ChiSquareJointDensity()),
        make_pipeline(Counted(**options), Counted("second"), IsolationForest(n_estimators=5)),
    )


def test_a_common_first_step_is_fitted_once_and_run_once_a_call():
    detector = three_members().fit(X)
    # Once on the rows to fit on, and once on the reference.
    assert CALLS["features", "fit"] == 1
    assert CALLS["features", "transform"] == 2
    assert CALLS["second", "fit"] == 1
    CALLS.clear()
    detector.score_samples(X)
    assert CALLS == {("features", "transform"): 1, ("second", "transform"): 1}
    first = [member[0] for member in detector.detectors_]
    assert first[0] is first[1] is first[2]


def test_members_are_the_pipelines_that_they_would_be_alone():
    detector = three_members().fit(X)
    for (_, member), fitted in zip(detector.detectors, detector.detectors_, strict=True):
        assert isinstance(fitted, Pipeline)
        assert [name for name, _ in fitted.steps] == [name for name, _ in member.steps]
        assert not hasattr(member[0], "n_features_in_")
    alone = [combine(member).fit(X) for _, member in detector.detectors]
    expected = np.column_stack([single.member_scores(X) for single in alone])
    np.testing.assert_allclose(detector.member_scores(X), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Counted(scale=1.0), Counted(scale=2.0)),
        (Counted(option=(1, "a")), Counted(option=(1, "b"))),
        (Counted(option=np.arange(3)), Counted(option=np.arange(1, 4))),
        (Counted(option={"a": 1}), Counted(option={"a": 2})),
        (Counted(option=StandardScaler()), Counted(option=StandardScaler(with_mean=False))),
        (Counted(option=len), Counted(option=max)),
        (Counted(option=1), Counted(option=True)),
        (Counted(), Counted().set_output(transform="pandas")),
    ],
    ids=["number", "tuple", "array", "dict", "estimator", "function", "type", "output"],
)
def test_only_equal_steps_are_shared(one, other):
    def fits(first, second):
        CALLS.clear()
        members = make_pipeline(first, RoseDetector()), make_pipeline(second, RoseDetector(power=1))
        combine(*members).fit(X)
        return CALLS["features", "fit"]

    assert fits(one, clone(one)) == 1
    assert fits(one, other) == 2


def test_steps_are_shared_as_far_as_they_are_equal():
    detector = combine(
        make_pipeline(Counted("a"), Counted("b"), Counted("c"), RoseDetector()),
        make_pipeline(Counted("a"), Counted("b"), RoseDetector(power=1)),
        make_pipeline(Counted("a"), Counted("d"), RoseDetector(power=2)),
        make_pipeline(Counted("d"), RoseDetector(power=2)),
        make_pipeline("passthrough", Counted("a"), None, RoseDetector()),
    ).fit(X)
    CALLS.clear()
    detector.score_samples(X)
    # "d" after "a" is not "d" on the samples themselves.
    transforms = {label: count for (label, _), count in CALLS.items()}
    assert transforms == {"a": 1, "b": 1, "c": 1, "d": 2}


def test_fitted_steps_are_shared_if_they_are_the_same_object():
    features = Counted().fit(X)
    detector = combine(
        make_pipeline(FrozenEstimator(features), RoseDetector()),
        make_pipeline(FrozenEstimator(features), ChiSquareJointDensity()),
        FrozenEstimator(make_pipeline(features, RoseDetector()).fit(X)),
        RoseDetector(),
    )
    CALLS.clear()
    detector.fit(X)
    assert CALLS["features", "fit"] == 0
    CALLS.clear()
    detector.score_samples(X)
    assert CALLS == {("features", "transform"): 1}


def test_prefit_pipelines_share_what_is_one_object_only():
    features = Counted().fit(X)
    pipelines = [
        Pipeline([("features", features), ("rose", RoseDetector().fit(X))]),
        Pipeline([("features", features), ("density", ChiSquareJointDensity().fit(X))]),
        make_pipeline(Counted(), RoseDetector()).fit(X),
    ]
    CALLS.clear()
    detector = combine(*pipelines, reference="prefit").fit(X)
    detector.score_samples(X)
    assert CALLS == {("features", "transform"): 4}


def test_one_gradient_pass_serves_all_members(monkeypatch):
    passes = []
    transform = GradientNormTransformer.transform

    def counted(self, X):
        passes.append(len(X))
        return transform(self, X)

    monkeypatch.setattr(GradientNormTransformer, "transform", counted)
    module = DiagonalGaussian((3,)).double()
    features = [GradientNormTransformer(module, output="log") for _ in range(3)]
    detector = combine(
        make_pipeline(features[0], ChiSquareJointDensity()),
        make_pipeline(features[1], RoseDetector()),
        make_pipeline(features[2], FunctionTransformer(np.exp), RoseDetector()),
    ).fit(X)
    assert passes == [50, 50]
    passes.clear()
    detector.score_samples(X)
    assert passes == [100]
    # Cloning copies the module into every member; the copies are still equal.
    passes.clear()
    clone(detector).fit(X)
    assert passes == [50, 50]


def test_modules_of_other_values_are_not_shared():
    module, shifted = DiagonalGaussian((3,)).double(), DiagonalGaussian((3,)).double()
    torch.nn.init.constant_(shifted.mean, 1.0)
    detector = combine(
        make_pipeline(GradientNormTransformer(module), RoseDetector()),
        make_pipeline(GradientNormTransformer(shifted), RoseDetector()),
    ).fit(X)
    one, other = (member[0].likelihood_model_.module for member in detector.detectors_)
    np.testing.assert_array_equal(one.mean.detach(), np.zeros(3))
    np.testing.assert_array_equal(other.mean.detach(), np.ones(3))


def test_what_cannot_be_pickled_is_shared_with_itself_only():
    one, other = (lambda X: 2 * X), (lambda X: 2 * X)
    members = [
        make_pipeline(Counted(option=one), RoseDetector()),
        make_pipeline(Counted(option=one), RoseDetector(power=1)),
        make_pipeline(Counted(option=other), RoseDetector()),
    ]
    combine(*members).fit(X)
    assert CALLS["features", "fit"] == 2


def test_a_pipelines_cache_is_used(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)

    def cached():
        members = [
            Pipeline([("features", Counted()), ("rose", RoseDetector(power=power))], memory=memory)
            for power in (1, 2)
        ]
        return combine(*members).fit(X)

    first = cached()
    assert CALLS["features", "fit"] == 1
    again = cached()
    assert CALLS["features", "fit"] == 1
    np.testing.assert_array_equal(first.score_samples(X), again.score_samples(X))
    assert again.detectors_[0].memory is memory


def test_seeds_reach_the_random_parts_of_members_and_stay_equal_where_steps_are():
    def forests(seed):
        forest = IsolationForest(n_estimators=5)
        members = [("a", forest), ("b", make_pipeline(Counted(), forest))]
        return CombinedDetector(members, random_state=seed).fit(X)

    one, other = forests(0), forests(0)
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    assert not np.array_equal(one.score_samples(X), forests(1).score_samples(X))
    unseeded = forests(None)
    assert unseeded.detectors_[0].random_state is None


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_workers_share_steps_within_a_branch(backend):
    detector = combine(
        make_pipeline(StandardScaler(), RoseDetector()),
        make_pipeline(StandardScaler(), RoseDetector(power=1)),
        make_pipeline(StandardScaler(with_mean=False), RoseDetector()),
        n_jobs=2,
    )
    with joblib.parallel_config(backend):
        scores = detector.fit(X).score_samples(X)
    assert detector.detectors_[0][0] is detector.detectors_[1][0]
    assert detector.detectors_[0][0] is not detector.detectors_[2][0]
    sequential = clone(detector).set_params(n_jobs=None).fit(X)
    np.testing.assert_allclose(scores, sequential.score_samples(X), rtol=1e-12)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_what_one_member_writes_into_the_output_of_a_common_step_no_other_sees(n_jobs):
    writing = make_pipeline(FunctionTransformer(np.exp), StandardScaler(copy=False), RoseDetector())
    reading = make_pipeline(
        FunctionTransformer(np.exp), ChiSquareJointDensity(marginal="lognormal")
    )
    members = [("writing", writing), ("reading", reading)]
    scores = [
        CombinedDetector(order, random_state=0, n_jobs=n_jobs).fit(X).score_samples(X)
        for order in (members, members[::-1])
    ]
    np.testing.assert_allclose(*scores)

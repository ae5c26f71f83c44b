"""Every estimator through scikit-learn's own checks, with no expected failure.

A new estimator joins by being listed in ``ESTIMATORS``.
"""

from __future__ import annotations

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgradood import (
    ChiSquareJointDensity,
    CombinedDetector,
    ConformalDetector,
    FisherMMDDetector,
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
    LikelihoodRatioDetector,
    LikelihoodRegretDetector,
    LogLikelihoodDetector,
    LogLikelihoodTransformer,
    RandomNetworkDistillationDetector,
    RoseDetector,
    ScoreTestDetector,
    SteinDiscrepancyDetector,
    TypicalityDetector,
    WaicDetector,
)
from skgradood.features import GradientAngleTransformer
from skgradood.models import DiagonalGaussian, RealNVP
from tests.detectors.likelihoods import RowVAE


def row_net() -> GenerativeNet:
    """A tiny model of rows, whose operations are elementwise: batches differ in no bit."""
    return GenerativeNet(DiagonalGaussian, max_epochs=2, lr=1e-2, random_state=0)


ESTIMATORS = [
    row_net(),
    GenerativeNet(RealNVP, max_epochs=1, dtype="float64", random_state=0),
    GradientNormTransformer(row_net(), random_state=0),
    GradientAngleTransformer(row_net(), random_state=0),
    GradientNormTransformer(
        row_net(), layers="channel", output="log", log_likelihood_column=True, random_state=0
    ),
    GradientNormTransformer(row_net(), layers="module", engine="loop", random_state=0),
    FisherPreconditioner(row_net(), random_state=0),
    FisherPreconditioner(
        row_net(),
        approximation=("identity", "ekfac", "block", "sketch"),
        output="log",
        log_likelihood_column=True,
        random_state=0,
    ),
    FisherPreconditioner(row_net(), approximation="kfac", fisher="model", random_state=0),
    FisherPreconditioner(row_net(), layers="channel", cross_fit=False, random_state=0),
    LogLikelihoodTransformer(row_net(), random_state=0),
    ChiSquareJointDensity(),
    ChiSquareJointDensity(dependence="independent", tail="upper"),
    RoseDetector(),
    RoseDetector(power=2),
    ScoreTestDetector(),
    ScoreTestDetector(given=-1),
    ScoreTestDetector(input="log", reference="chi2", df=3),
    CombinedDetector(
        [("density", ChiSquareJointDensity()), ("rose", RoseDetector())], random_state=0
    ),
    CombinedDetector(
        [("density", ChiSquareJointDensity()), ("forest", IsolationForest(n_estimators=5))],
        method="brown",
        random_state=0,
    ),
    LogLikelihoodDetector(row_net()),
    TypicalityDetector(row_net()),
    TypicalityDetector(row_net(), statistic="p_value"),
    FisherMMDDetector(row_net()),
    SteinDiscrepancyDetector(row_net()),
    LikelihoodRatioDetector(row_net(), "perturbed", random_state=0),
    WaicDetector(row_net(), n_estimators=2, random_state=0),
    RandomNetworkDistillationDetector(blur=None, max_epochs=2, width=4, random_state=0),
    LikelihoodRegretDetector(GenerativeNet(RowVAE, max_epochs=1, random_state=0), n_steps=3),
    ConformalDetector(ChiSquareJointDensity(marginal="normal"), random_state=0),
    ConformalDetector(IsolationForest(n_estimators=5, random_state=0), random_state=0),
]

DETECTORS = [estimator for estimator in ESTIMATORS if hasattr(estimator, "decision_function")]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(80, 3)) @ np.array(
        [[1.0, 0.5, 0.0], [0.0, 1.0, -0.5], [0.0, 0.0, 2.0]]
    )


def outputs(estimator, X):
    names = ("score_samples", "decision_function", "transform", "predict", "p_values")
    return {name: getattr(estimator, name)(X) for name in names if hasattr(estimator, name)}


def identifier(estimator):
    return f"{type(estimator).__name__}-{ESTIMATORS.index(estimator)}"


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=identifier)
def test_same_seed_same_result_and_pickles_agree(estimator, rows, tmp_path):
    X = np.abs(rows)  # squared norms are positive
    fitted = clone(estimator).fit(X)
    again = clone(estimator).fit(X)
    joblib.dump(fitted, tmp_path / "estimator.joblib")
    copies = [
        again,
        pickle.loads(pickle.dumps(fitted)),
        joblib.load(tmp_path / "estimator.joblib"),
    ]
    expected = outputs(fitted, X)
    assert expected
    for copy in copies:
        for name, values in outputs(copy, X).items():
            np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("estimator", DETECTORS, ids=identifier)
def test_detectors_agree_with_their_offset(estimator, rows):
    X = np.abs(rows)
    fitted = clone(estimator).fit(X)
    decisions = fitted.decision_function(X)
    np.testing.assert_array_equal(fitted.predict(X), np.where(decisions >= 0, 1, -1))
    np.testing.assert_allclose(decisions, fitted.score_samples(X) - fitted.offset_)


REFUSED = {
    "NaN": np.full((80, 5), np.nan),
    "constant": np.ones((80, 5)),
    "huge": np.random.default_rng(0).normal(size=(80, 5)) * 1e300,
}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=identifier)
def test_a_fit_that_fails_leaves_what_was_fitted(estimator, rows):
    """Not even the number of features changes: the former fit goes on working."""
    fitted = clone(estimator).fit(np.abs(rows))
    before = dict(vars(fitted))
    for X in REFUSED.values():
        try:
            clone(estimator).fit(X)
        except (TypeError, ValueError, RuntimeError):
            with pytest.raises((TypeError, ValueError, RuntimeError)):
                fitted.fit(X)
            assert vars(fitted).keys() == before.keys()
            assert all(vars(fitted)[name] is value for name, value in before.items())

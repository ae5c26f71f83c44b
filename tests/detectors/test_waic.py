"""WAIC against the formula, member by member."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn

from skgradood import GenerativeNet, WaicDetector
from skgradood.models import DiagonalGaussian, RealNVP
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.detectors.likelihoods import Given, gaussian, gaussian_log_prob, never_trained

MOMENTS = [([0.0, 0.0], [1.0, 1.0]), ([0.5, 0.0], [1.2, 1.0]), ([0.0, -1.0], [1.0, 0.8])]
UNTRAINED = GenerativeNet(never_trained)


@pytest.fixture
def rows(rng):
    return rng.normal(size=(60, 2))


def test_mean_minus_variance_by_hand(rows):
    detector = WaicDetector([gaussian(*moments) for moments in MOMENTS]).fit(rows)
    X = 3 * rows[:10]
    values = [gaussian_log_prob(X, *moments) for moments in MOMENTS]
    mean = sum(values) / 3
    variance = sum((value - mean) ** 2 for value in values) / 2
    np.testing.assert_allclose(detector.score_samples(X), mean - variance, rtol=1e-9)


def test_disagreement_lowers_the_score(rows):
    """Two models find a place equally likely on average; where they differ it scores less."""
    detector = WaicDetector([Given(0), Given(1)]).fit(rows)
    assert detector.score_samples([[-1.0, -1.0]]) == pytest.approx(-1)
    assert detector.score_samples([[1.0, -3.0]]) == pytest.approx(-1 - 8)


def test_one_net_makes_members_of_different_seeds(rows):
    net = GenerativeNet(RealNVP, module__n_layers=2, module__hidden=4, max_epochs=1)
    detector = WaicDetector(net, n_estimators=3, random_state=0).fit(rows)
    assert not hasattr(net, "module_")
    values = [model.estimator.score_samples(rows) for model in detector.likelihood_models_]
    assert len({tuple(value) for value in values}) == 3
    seeds = [model.estimator.random_state for model in detector.likelihood_models_]
    alone = clone(net).set_params(random_state=seeds[1]).fit(rows)
    np.testing.assert_array_equal(alone.score_samples(rows), values[1])
    again = clone(detector).fit(rows)
    np.testing.assert_array_equal(again.score_samples(rows), detector.score_samples(rows))
    other = clone(detector).set_params(random_state=1).fit(rows)
    assert not np.allclose(other.score_samples(rows), detector.score_samples(rows))


def test_members_may_be_of_every_kind(rows):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, dtype="float64", random_state=0)
    members = [net, FrozenEstimator(clone(net).fit(rows)), gaussian(*MOMENTS[0])]
    detector = WaicDetector(members).fit(rows)
    first, second, third = (model.module for model in detector.likelihood_models_)
    assert second is members[1].estimator.module_
    assert third is members[2]
    assert first is not second


def test_groups_are_judged_by_the_mean(rows):
    groups = make_groups(rows, 4, random_state=0)
    members = [gaussian(*moments) for moments in MOMENTS]
    of_groups = WaicDetector(members, grouped=True).fit(groups).score_samples(groups)
    of_rows = WaicDetector(members).fit(rows).score_samples(groups.reshape(-1, 2))
    np.testing.assert_allclose(of_groups, of_rows.reshape(-1, 4).mean(axis=1))


@pytest.mark.parametrize("strange", [101.0, 102.0, 103.0])
def test_one_member_without_a_finite_value_is_enough(strange, rows):
    detector = WaicDetector([Given(0), Given(1)]).fit(rows)
    assert detector.score_samples([[0.0, strange]]) == -np.inf
    assert detector.predict([[0.0, strange]]) == [-1]


def test_extreme_values_never_become_nan(rows):
    detector = WaicDetector([Given(0), Given(1)]).fit(rows)
    X = [[1e308, -1e308], [1e308, 1e308], [-1e308, -1e308], [1e200, 0.0], [-1e300, 1.0]]
    scores = detector.score_samples(X)
    assert (np.isfinite(scores) | (scores == -np.inf)).all()


@pytest.mark.parametrize(
    ("estimators", "error", "message"),
    [
        ([Given()], ValueError, "at least 2 members; got 1"),
        ("ensemble", TypeError, "estimators must be an unfitted GenerativeNet"),
        (Given(), TypeError, "estimators must be an unfitted GenerativeNet"),
        ([UNTRAINED, Given(), "vae"], TypeError, r"estimators\[2\] must be a GenerativeNet"),
        ([UNTRAINED, nn.Identity()], TypeError, "Identity has no method log_prob"),
        ([UNTRAINED, FrozenEstimator(UNTRAINED)], NotFittedError, "GenerativeNet"),
    ],
)
def test_what_is_no_ensemble_is_refused_before_a_member_is_trained(
    estimators, error, message, rows
):
    with pytest.raises(error, match=message):
        WaicDetector(estimators).fit(rows)


def test_saved_and_loaded(rows, tmp_path):
    net = GenerativeNet(RealNVP, module__n_layers=2, module__hidden=4, max_epochs=1)
    detector = WaicDetector(net, n_estimators=2, random_state=0).fit(rows)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.score_samples(rows), detector.score_samples(rows))

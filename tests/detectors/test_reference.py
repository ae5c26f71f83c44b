"""From scores to p-values: ranks inside the reference, and a tail without end beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import expon, genpareto, kstest, logistic, norm, uniform

from skgradood.detectors._reference import ScoreReference

finite = st.floats(-1e6, 1e6)
references = st.lists(st.one_of(finite, st.sampled_from([0.0, 1.0])), min_size=1, max_size=60)


@given(references)
def test_reference_scores_have_the_p_value_of_their_rank(scores):
    scores = np.array(scores)
    log_p = ScoreReference(scores).log_p(scores)
    n = len(scores)
    n_tail = int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))
    threshold = np.sort(scores)[min(n_tail, n - 1)]
    for score, value in zip(scores, log_p, strict=True):
        if score >= threshold:
            rank = np.sum(scores < score) + 0.5 * np.sum(scores == score)
            assert value == pytest.approx(np.log(rank / n), rel=1e-12, abs=1e-12)


@given(references, st.lists(st.one_of(finite, st.floats(-1e300, 1e300)), min_size=2, max_size=20))
@example([0.0] * 5 + [1.0, 1.0, 2.0, -1.0], [0.0, 5.4707040250143314e-195])
def test_higher_scores_never_have_smaller_p_values(reference, scores):
    scores = np.sort(scores)
    log_p = ScoreReference(np.array(reference)).log_p(scores)
    assert np.isfinite(log_p).all()
    assert (log_p <= 0).all()
    assert (np.diff(log_p) >= 0).all()


@given(references, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_the_unit_of_the_scores_does_not_matter(reference, factor, shift):
    reference = np.round(reference, 3)
    if np.ptp(reference) == 0:
        return
    points = np.linspace(reference.min() - np.ptp(reference), reference.max(), 30)
    log_p = ScoreReference(reference).log_p(points)
    scaled = ScoreReference(factor * reference + shift).log_p(factor * points + shift)
    # Equal but for points that rounding moves to the other side of a tie.
    assert np.median(np.abs(scaled - log_p)) <= 1e-5 * (1 - log_p.min())


@pytest.mark.parametrize("family", [norm, expon, uniform, logistic, genpareto(0.4)])
@pytest.mark.parametrize("n", [3, 30, 1000])
def test_far_outliers_rank_and_nothing_jumps(family, n):
    reference = -family.rvs(size=n, random_state=0)
    distribution = ScoreReference(reference)
    inside = np.linspace(reference.max(), reference.min() - 1, 20_001)
    log_p = distribution.log_p(inside)
    assert (np.diff(log_p) < 0).all()
    threshold = -distribution._threshold
    around = distribution.log_p(threshold + np.array([1e-12, 0, -1e-12]))
    np.testing.assert_allclose(around, around[1], rtol=1e-6)
    far = reference.min() - np.geomspace(1e-3, 1e12, 2000)
    assert (np.diff(distribution.log_p(far)) < 0).all()


@pytest.mark.parametrize("family", [expon, logistic, genpareto(0.3)])
def test_the_tail_is_the_true_one_up_to_its_error(family):
    """It goes 10 nats beyond the threshold that about 200 of the scores lie above."""
    scores = -family.rvs(size=(20, 5000), random_state=1)
    far = -family.isf(1e-6)
    estimates = np.array([ScoreReference(row).log_p(np.array([far]))[0] for row in scores])
    assert np.median(estimates) == pytest.approx(np.log(1e-6), abs=1.5)
    assert np.quantile(np.abs(estimates - np.log(1e-6)), 0.8) < 4


@pytest.mark.parametrize("family", [norm, expon, uniform, genpareto(0.4)])
def test_fresh_inliers_have_uniform_p_values(family):
    rng = np.random.default_rng(3)
    reference = ScoreReference(-family.rvs(size=20_000, random_state=rng))
    fresh = reference.log_p(-family.rvs(size=1000, random_state=rng))
    assert kstest(np.exp(fresh), "uniform").pvalue > 0.01


def test_what_is_not_finite():
    log_p = ScoreReference(np.arange(10.0)).log_p(np.array([-np.inf, np.nan, np.inf]))
    np.testing.assert_array_equal(log_p, [-np.inf, -np.inf, 0.0])


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e-310, 1e300])
@pytest.mark.parametrize("n", [1, 50])
def test_a_reference_of_equal_scores(value, n):
    distribution = ScoreReference(np.full(n, value))
    below, at, above = distribution.log_p(value + np.array([-1.0, 0.0, 1.0]) * (1 + abs(value)))
    assert at == pytest.approx(np.log(0.5))
    assert -np.inf < below < np.log(1e-6)
    assert above > np.log(0.99)

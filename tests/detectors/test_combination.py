"""Combined p-values: against SciPy and closed forms, far out in logarithms, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_ndtr
from scipy.stats import combine_pvalues

from skgradood.detectors._combination import COMBINATIONS, brown, cauchy, fisher, smallest

RNG = np.random.default_rng(0)
CORRELATION = np.array([[1.0, 0.6, 0.1], [0.6, 1.0, -0.2], [0.1, -0.2, 1.0]])
METHODS = {**COMBINATIONS, "brown": lambda log_p: brown(log_p, CORRELATION)}

log_p_values = st.one_of(
    st.sampled_from([0.0, -1e-300, -1e-12, -0.01, -0.02, -29.9, -30.1, -599.9, -600.1, -1e12]),
    st.floats(-50, 0),
    st.floats(-1e12, 0),
)
rows_of_three = arrays(np.float64, (1, 3), elements=log_p_values)


@pytest.mark.parametrize("n_tests", [1, 2, 5])
@pytest.mark.parametrize(("method", "theirs"), [("fisher", "fisher"), ("max", "tippett")])
def test_equals_scipy(method, theirs, n_tests):
    p = RNG.uniform(size=(40, n_tests)) ** 8
    expected = [combine_pvalues(row, theirs).pvalue for row in p]
    np.testing.assert_allclose(np.exp(METHODS[method](np.log(p))), expected, rtol=1e-10)


@pytest.mark.parametrize("n_tests", [1, 2, 5])
def test_cauchy_is_its_closed_form(n_tests):
    p = 0.99 * RNG.uniform(size=(40, n_tests)) ** 4
    statistic = np.tan((0.5 - p) * np.pi).mean(axis=1)
    expected = 0.5 - np.arctan(statistic) / np.pi
    np.testing.assert_allclose(np.exp(cauchy(np.log(p))), expected, rtol=1e-9, atol=1e-14)


def test_one_test_that_is_sure_does_not_outweigh_the_evidence_of_another():
    assert cauchy(np.array([[-20.0, -1e-300]]))[0] == pytest.approx(np.log(2) - 20, rel=1e-6)
    assert cauchy(np.array([[-20.0, 0.0]]))[0] == pytest.approx(np.log(2) - 20, rel=1e-6)


@pytest.mark.parametrize("far", [-50.0, -599.0, -601.0, -1e4, -1e9, -1e100])
def test_closed_forms_where_p_values_underflow(far):
    """Chi-square with 4 degrees of freedom: P(> x) = exp(-x / 2) (1 + x / 2)."""
    two = np.array([[far, -1.0]])
    total = 1 - far
    assert fisher(two)[0] == pytest.approx(np.log1p(total) - total, rel=1e-12)
    assert cauchy(two)[0] == pytest.approx(far + np.log(2), rel=1e-10)
    assert smallest(two)[0] == pytest.approx(far + np.log(2), rel=1e-12)
    copies = np.full((1, 4), far)
    assert brown(copies, np.ones((4, 4)))[0] == pytest.approx(far, rel=1e-12)
    assert cauchy(copies)[0] == pytest.approx(far, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_one_test_alone_stays_as_it_is(method):
    log_p = np.log(RNG.uniform(0.001, 0.98, size=(50, 1)))
    options = [np.eye(1)] if method == "brown" else []
    combined = COMBINATIONS[method](log_p, *options)
    np.testing.assert_allclose(combined, log_p[:, 0], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_p_value_of_zero_settles_it(method):
    log_p = np.array([[-np.inf, 0.0, -1.0], [-np.inf] * 3, [-5.0, -0.1, -1.0]])
    combined = METHODS[method](log_p)
    assert (combined[:2] == -np.inf).all()
    assert np.isfinite(combined[2])


@given(rows_of_three, st.permutations(range(3)))
@pytest.mark.parametrize("method", ["fisher", "cauchy", "max"])
def test_the_order_of_the_tests_does_not_matter(method, log_p, order):
    one, other = METHODS[method](log_p), METHODS[method](log_p[:, order])
    np.testing.assert_allclose(one, other, rtol=1e-12)


@given(rows_of_three, st.permutations(range(3)))
def test_nor_does_it_for_brown_with_its_correlation(log_p, order):
    permuted = brown(log_p[:, order], CORRELATION[np.ix_(order, order)])
    np.testing.assert_allclose(permuted, brown(log_p, CORRELATION), rtol=1e-12)


@given(rows_of_three, st.integers(0, 2), st.floats(0, 1e12))
@pytest.mark.parametrize("method", METHODS)
def test_lowering_a_p_value_never_raises_the_combined_one(method, log_p, which, nats):
    lowered = log_p.copy()
    lowered[0, which] -= nats
    before, after = METHODS[method](log_p)[0], METHODS[method](lowered)[0]
    assert np.isfinite([before, after]).all()
    assert after <= before * (1 - 1e-13) <= 0


@pytest.mark.parametrize("method", METHODS)
def test_far_outliers_still_rank(method):
    far = -np.geomspace(1, 1e12, 4000)
    combined = METHODS[method](np.column_stack([far, np.full_like(far, -0.5), far / 2]))
    assert (np.diff(combined) < 0).all()


def correlated_log_p(rng, n, rho):
    shared, own = rng.normal(size=(n, 1)), rng.normal(size=(n, 4))
    return log_ndtr(np.sqrt(rho) * shared + np.sqrt(1 - rho) * own)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("alpha", [0.1, 0.01])
def test_brown_is_calibrated_for_correlated_tests_and_fisher_is_not(rho, alpha):
    rng = np.random.default_rng(1)
    correlation = np.corrcoef(correlated_log_p(rng, 50_000, rho).T)
    log_p = correlated_log_p(rng, 200_000, rho)
    share_of_brown = np.mean(brown(log_p, correlation) <= np.log(alpha))
    share_of_fisher = np.mean(fisher(log_p) <= np.log(alpha))
    assert share_of_brown == pytest.approx(alpha, rel=0.12)
    if rho == 0:
        assert share_of_fisher == pytest.approx(alpha, rel=0.07)
    else:
        assert share_of_fisher > (1.2 if alpha == 0.1 else 2.0) * alpha


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_cauchy_and_smallest_hold_their_level_at_small_p_values(rho):
    log_p = correlated_log_p(np.random.default_rng(2), 400_000, rho)
    share = np.mean(cauchy(log_p) <= np.log(0.001))
    assert share == pytest.approx(0.001, rel=0.35)
    assert np.mean(smallest(log_p) <= np.log(0.01)) <= 0.01 * 1.05

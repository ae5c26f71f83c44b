"""Log tails of the gamma distribution where SciPy's underflow, and the trigamma inverse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri_exp, polygamma
from scipy.stats import gamma, kstest

from skgradood.detectors import _gamma
from skgradood.detectors._marginals import Chi2Marginal

# Computed with mpmath at 60 digits: log P(a, x) and log Q(a, x).
REFERENCE_LOG_CDF = [
    (0.5, 1e-300, -345.2669817114716),
    (17.0, 1e-100, -3947.899731540015),
    (300.0, 3.0, -1088.312146901932),
    (1e4, 5e3, -1936.302975331598),
]
REFERENCE_LOG_SF = [
    (1e-3, 1e3, -1013.809023915395),
    (2.5, 1e6, -999979.5614155335),
    (300.0, 900.0, -274.8830567745065),
    (1e4, 2e4, -3074.052511373138),
]


@pytest.mark.parametrize(("a", "x", "expected"), REFERENCE_LOG_CDF)
def test_far_lower_tail(a, x, expected):
    assert _gamma.log_cdf(np.array(a), np.log(x)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("a", "x", "expected"), REFERENCE_LOG_SF)
def test_far_upper_tail(a, x, expected):
    assert _gamma.log_sf(np.array(a), np.log(x)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("a", [0.01, 0.5, 3.0, 40.0, 5e3, 1e6])
def test_equals_scipy_where_scipy_can_do_it(a):
    quantiles = np.array([1e-200, 1e-40, 1e-31, 1e-29, 1e-8, 0.1, 0.5, 0.9])
    below, above = gamma.ppf(quantiles, a), gamma.isf(quantiles, a)
    below = below[below > 0]
    for x in (below, above):
        expected = gamma.logcdf(x, a), gamma.logsf(x, a), gamma.logpdf(x, a)
        computed = (
            _gamma.log_cdf(np.array(a), np.log(x)),
            _gamma.log_sf(np.array(a), np.log(x)),
            _gamma.log_kernel(np.array(a), np.log(x)) - np.log(x),
        )
        for ours, theirs in zip(computed, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "z", [s * z for s in (-1, 1) for z in (2.0, 4.2, 4.4, 4.6, 8.0, 11.4, 30.0)]
)
def test_large_shapes_are_nearly_normal(z):
    """The Wilson-Hilferty cube root is accurate to 1e-8 here; SciPy's own tails are not."""
    a = 1e9
    x = a + z * np.sqrt(a)
    tail = _gamma.log_cdf if z < 0 else _gamma.log_sf
    expected = 3 * np.sqrt(a) * ((x / a) ** (1 / 3) - (1 - 1 / (9 * a)))
    score = np.sign(z) * -ndtri_exp(tail(np.array(a), np.log(x)))
    assert score == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("a", [1e-2, 1.0, 50.0, 1e8])
def test_tails_are_monotone_and_finite_at_every_distance(a):
    log_x = np.linspace(-700, 700, 5001)
    lower, upper = _gamma.log_cdf(np.array(a), log_x), _gamma.log_sf(np.array(a), log_x)
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) <= 0).all()


@pytest.mark.parametrize("a", [1e6, 1e9, 1e12])
def test_tails_of_large_shapes_are_monotone_where_methods_meet(a):
    z = np.linspace(0.5, 14, 2001)
    lower = _gamma.log_cdf(np.array(a), np.log(a) + np.log1p(-z / np.sqrt(a)))
    upper = _gamma.log_sf(np.array(a), np.log(a) + np.log1p(z / np.sqrt(a)))
    assert (np.diff(lower) < 0).all()
    assert (np.diff(upper) < 0).all()
    np.testing.assert_allclose(lower, upper, rtol=20 / np.sqrt(a))


def test_inverse_trigamma():
    y = np.logspace(-4, 9, 60)
    np.testing.assert_allclose(_gamma.inverse_trigamma(polygamma(1, y)), y, rtol=1e-12)


@pytest.mark.parametrize("df", [0.3, 1.0, 8.0, 500.0])
def test_normal_scores_of_chi_square_data_are_standard_normal(df):
    f = 3.0 * np.random.default_rng(0).chisquare(df, size=(2000, 1))
    marginal = Chi2Marginal(scale=np.array([3.0]), df=np.array([df]))
    assert kstest(marginal.normal_score(f)[:, 0], "norm").pvalue > 0.01

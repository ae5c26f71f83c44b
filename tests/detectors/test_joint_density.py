"""The joint density against formulas from SciPy, for every marginal, dependence and tail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma, psi
from sklearn.covariance import LedoitWolf, empirical_covariance, oas

from skgradood.detectors import ChiSquareJointDensity

MARGINALS = ["normal", "lognormal", "chi2"]
TAILS = ["density", "two-sided", "upper", "lower"]
DEPENDENCES = ["gaussian", "independent"]


def correlated_columns(marginal, n=400, seed=0):
    """Columns with the given margins, location and scale, and strong correlation."""
    rng = np.random.default_rng(seed)
    factor = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0.5, 0, 0.87, 0], [-0.3, 0.2, 0.1, 0.9]])
    z = rng.normal(size=(n, 4)) @ factor.T
    z /= np.linalg.norm(factor, axis=1)
    if marginal == "chi2":
        return np.array([1.0, 10, 1e-6, 1e8]) * stats.chi2.ppf(stats.norm.cdf(z), [2, 5, 9, 40])
    logs = z * [0.5, 1, 2, 0.1] + [0, -5, 3, 10]
    return np.exp(logs) if marginal == "lognormal" else logs


def scipy_margins(marginal, X, method="log"):
    """Frozen distributions fitted to each column by formulas of their own."""
    if marginal == "normal":
        return [stats.norm(c.mean(), c.std()) for c in X.T]
    if marginal == "lognormal":
        return [stats.lognorm(s=np.log(c).std(), scale=np.exp(np.log(c).mean())) for c in X.T]
    if method == "moments":
        return [stats.gamma(a=c.mean() ** 2 / c.var(), scale=c.var() / c.mean()) for c in X.T]
    frozen = []
    for c in X.T:
        grid = np.logspace(-2, 3, 400_001)
        half_df = grid[np.argmin(np.abs(polygamma(1, grid) - np.log(c).var()))]
        frozen.append(stats.gamma(a=half_df, scale=np.exp(np.log(c).mean() - psi(half_df))))
    return frozen


def scipy_scores(margins, dependence, tail, X, fitted_on):
    """The four statistics by SciPy's own multivariate distributions and tests."""
    columns = list(zip(margins, X.T, strict=True))
    p_below = np.column_stack([m.cdf(c) for m, c in columns])
    p_above = np.column_stack([m.sf(c) for m, c in columns])
    z = stats.norm.ppf(p_below)
    z_fit = np.column_stack(
        [stats.norm.ppf(m.cdf(c)) for m, c in zip(margins, fitted_on.T, strict=True)]
    )
    R = np.corrcoef(z_fit.T) if dependence == "gaussian" else np.eye(X.shape[1])
    if tail == "density":
        log_pdf = sum(m.logpdf(c) for m, c in columns)
        joint = stats.multivariate_normal(np.zeros(len(R)), R).logpdf(z)
        return log_pdf + joint - stats.norm.logpdf(z).sum(axis=1)
    if tail == "two-sided" and dependence == "independent":
        p = 2 * np.minimum(p_below, p_above)
        return np.log([stats.combine_pvalues(row, method="fisher").pvalue for row in p])
    if tail == "two-sided":
        return stats.chi2.logsf(np.einsum("ni,ij,nj->n", z, np.linalg.inv(R), z), len(R))
    p = p_above if tail == "upper" else p_below
    if dependence == "independent":
        return np.log([stats.combine_pvalues(row, method="stouffer").pvalue for row in p])
    return stats.norm.logsf(stats.norm.isf(p).sum(axis=1) / np.sqrt(R.sum()))


@pytest.mark.parametrize("chi2_fit", ["log", "moments"])
@pytest.mark.parametrize(
    ("marginal", "dependence", "tail"),
    list(itertools.product(MARGINALS, DEPENDENCES, TAILS)),
)
def test_every_combination_equals_scipy(marginal, dependence, tail, chi2_fit):
    X = correlated_columns(marginal)
    test = correlated_columns(marginal, n=50, seed=1)
    detector = ChiSquareJointDensity(
        marginal=marginal,
        dependence=dependence,
        tail=tail,
        covariance="empirical",
        chi2_fit=chi2_fit,
    ).fit(X)
    expected = scipy_scores(scipy_margins(marginal, X, chi2_fit), dependence, tail, test, X)
    # The oracle of chi2_fit="log" inverts trigamma on a grid of relative width 3e-5.
    np.testing.assert_allclose(detector.score_samples(test), expected, rtol=2e-3, atol=2e-3)
    if marginal != "chi2" or chi2_fit == "moments":
        np.testing.assert_allclose(detector.score_samples(test), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance", ["ledoit_wolf", "oas", "empirical"])
def test_gaussian_dependence_is_the_multivariate_normal_with_that_covariance(covariance):
    X, test = correlated_columns("normal", n=30), correlated_columns("normal", n=20, seed=1)
    scale = X.std(axis=0)
    standardised = (X - X.mean(axis=0)) / scale
    correlation = {
        "ledoit_wolf": lambda Z: LedoitWolf().fit(Z).covariance_,
        "oas": lambda Z: oas(Z)[0],
        "empirical": empirical_covariance,
    }[covariance](standardised)
    joint = stats.multivariate_normal(X.mean(axis=0), correlation * np.outer(scale, scale))

    detector = ChiSquareJointDensity(covariance=covariance).fit(X)
    np.testing.assert_allclose(detector.correlation_, correlation, atol=1e-12)
    np.testing.assert_allclose(detector.score_samples(test), joint.logpdf(test), rtol=1e-10)

    logs = ChiSquareJointDensity(marginal="lognormal", covariance=covariance).fit(np.exp(X))
    jacobian = test.sum(axis=1)
    np.testing.assert_allclose(
        logs.score_samples(np.exp(test)), joint.logpdf(test) - jacobian, rtol=1e-9
    )


def test_the_published_statistic_is_the_sum_of_log_normal_densities():
    X = correlated_columns("lognormal")
    detector = ChiSquareJointDensity(marginal="lognormal", dependence="independent").fit(X)
    expected = np.zeros(len(X))
    for column in X.T:
        shape, _, scale = stats.lognorm.fit(column, floc=0)
        expected += stats.lognorm.logpdf(column, shape, scale=scale)
    np.testing.assert_allclose(detector.score_samples(X), expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["log", "moments"])
def test_chi_square_parameters_are_recovered(method):
    scale, df = np.array([1e-12, 0.5, 1e9]), np.array([0.7, 6.0, 120.0])
    X = scale * np.random.default_rng(0).chisquare(df, size=(20_000, 3))
    detector = ChiSquareJointDensity(marginal="chi2", chi2_fit=method).fit(X)
    np.testing.assert_allclose(detector.df_, df, rtol=0.06)
    np.testing.assert_allclose(detector.scale_, scale, rtol=0.06)


def test_fitting_logs_resists_heavy_tails():
    X = np.random.default_rng(0).chisquare(6, size=(500, 1))
    X[:3] *= 100
    k_log = ChiSquareJointDensity(marginal="chi2", chi2_fit="log").fit(X).df_[0]
    with_moments = ChiSquareJointDensity(marginal="chi2", chi2_fit="moments").fit(X)
    assert 4 < k_log < 7
    assert with_moments.df_[0] < 1


@pytest.mark.parametrize("dependence", DEPENDENCES)
@pytest.mark.parametrize("tail", ["two-sided", "upper", "lower"])
def test_p_values_of_inliers_are_uniform(dependence, tail):
    rng = np.random.default_rng(0)
    covariance = np.eye(3) if dependence == "independent" else 0.3 * np.eye(3) + 0.7
    X, test = rng.multivariate_normal(np.zeros(3), covariance, size=(2, 3000))
    detector = ChiSquareJointDensity(dependence=dependence, tail=tail).fit(X)
    assert stats.kstest(np.exp(detector.score_samples(test)), "uniform").pvalue > 0.01


def test_tails_point_where_they_say():
    X = np.random.default_rng(0).normal(size=(300, 3))
    high, low = np.full((1, 3), 4.0), np.full((1, 3), -4.0)
    score = {tail: ChiSquareJointDensity(tail=tail).fit(X).score_samples for tail in TAILS}
    assert score["upper"](high) < -20 < -1e-3 < score["upper"](low)
    assert score["lower"](low) < -20 < -1e-3 < score["lower"](high)
    assert max(score["two-sided"](high), score["two-sided"](low)) < -10


@pytest.mark.parametrize("covariance", ["ledoit_wolf", "oas"])
@pytest.mark.parametrize("n", [2, 3, 20])
def test_fewer_rows_than_columns(covariance, n):
    rng = np.random.default_rng(0)
    X, test = rng.normal(size=(n, 60)), rng.normal(size=(40, 60))
    detector = ChiSquareJointDensity(covariance=covariance).fit(X)
    scores = detector.score_samples(test)
    assert np.isfinite(scores).all()
    assert detector.score_samples(test + 10).max() < scores.min()


def test_a_singular_empirical_covariance_says_what_to_do():
    X = np.random.default_rng(0).normal(size=(20, 30))
    detector = ChiSquareJointDensity(covariance="empirical")
    with pytest.raises(ValueError, match=r"30 layers is singular on 20 rows.*ledoit_wolf"):
        detector.fit(X)
    copied = np.column_stack([X[:, 0], X[:, 0]])
    with pytest.raises(ValueError, match="singular"):
        detector.fit(copied)
    assert np.isfinite(ChiSquareJointDensity().fit(copied).score_samples(copied)).all()


def test_dependence_finds_what_margins_cannot():
    """A pair against the correlation is abnormal, though each of its values is ordinary."""
    rng = np.random.default_rng(0)
    X = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=500)
    pair = [[1.5, -1.5]]
    assert ChiSquareJointDensity().fit(X).predict(pair) == -1
    assert ChiSquareJointDensity(dependence="independent").fit(X).predict(pair) == 1


@pytest.mark.parametrize(("contamination", "share"), [("auto", 0.05), (0.2, 0.2), (0.5, 0.5)])
def test_contamination_is_the_share_of_training_outliers(contamination, share):
    X = correlated_columns("normal")
    detector = ChiSquareJointDensity(contamination=contamination)
    verdicts = detector.fit_predict(X)
    assert np.mean(verdicts == -1) == pytest.approx(share, abs=0.5 / len(X))
    np.testing.assert_array_equal(verdicts == 1, detector.decision_function(X) >= 0)


def test_layer_scores_are_normal_scores_of_each_layer():
    X = correlated_columns("chi2")
    detector = ChiSquareJointDensity(marginal="chi2", chi2_fit="moments").fit(X)
    expected = [
        stats.norm.ppf(margin.cdf(column))
        for margin, column in zip(scipy_margins("chi2", X, "moments"), X.T, strict=True)
    ]
    np.testing.assert_allclose(detector.layer_scores(X), np.transpose(expected), rtol=1e-6)

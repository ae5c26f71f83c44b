"""Q-Q plots: quantiles and Kolmogorov-Smirnov distances against SciPy's."""

import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from matplotlib.figure import Figure
from scipy.special import polygamma

from skgradood import GenerativeNet, layer_gradient_norms
from skgradood.inspection import QuantileDisplay
from skgradood.models import DiagonalGaussian


@pytest.fixture
def norms(rng):
    """Columns: lognormal, scaled chi-square, constant, scaled chi-square of few degrees."""
    columns = [
        rng.lognormal(2.0, 1.5, size=400),
        30 * rng.chisquare(5, size=400),
        np.full(400, 7.0),
        1e-3 * rng.chisquare(1.5, size=400),
    ]
    return np.column_stack(columns)


def frozen_marginals(column):
    """What should be fitted, as SciPy's distributions."""
    logs = np.log(column)
    lognormal = scipy.stats.lognorm(s=logs.std(), scale=np.exp(logs.mean()))
    # psi_1(k/2) = Var log f, solved by bisection; psi(k/2) + log 2s = E log f.
    half = scipy.optimize.brentq(lambda a: polygamma(1, a) - logs.var(), 1e-3, 1e6)
    scale = np.exp(logs.mean() - polygamma(0, half))
    return {"lognormal": lognormal, "chi2": scipy.stats.gamma(half, scale=scale)}


def test_distances_are_those_of_scipy(norms):
    display = QuantileDisplay.from_features(norms)
    for column in (0, 1, 3):
        for name, marginal in frozen_marginals(norms[:, column]).items():
            expected = scipy.stats.kstest(norms[:, column], marginal.cdf).statistic
            assert display.ks_[name][column] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(display.ks_["lognormal"][2])
    assert np.isnan(display.ks_["chi2"][2])
    assert display.ks_["lognormal"][0] < display.ks_["chi2"][0]
    assert display.ks_["chi2"][3] < display.ks_["lognormal"][3]


def test_quantiles_are_those_of_scipy(norms):
    display = QuantileDisplay.from_features(norms, layers=[3, 0])
    probabilities = (np.arange(400) + 0.5) / 400
    for k, column in enumerate([3, 0]):
        np.testing.assert_array_equal(display.squared_norms[:, k], np.sort(norms[:, column]))
        for name, marginal in frozen_marginals(norms[:, column]).items():
            np.testing.assert_allclose(
                display.quantiles[name][:, k], marginal.ppf(probabilities), rtol=1e-6
            )


def test_marginals_fitted_to_a_reference(norms, rng):
    shown = np.column_stack([rng.lognormal(3.0, 1.0, size=50) for _ in range(4)])
    display = QuantileDisplay.from_features(shown, reference=norms)
    for column in (0, 1, 3):
        for name, marginal in frozen_marginals(norms[:, column]).items():
            expected = scipy.stats.kstest(shown[:, column], marginal.cdf).statistic
            assert display.ks_[name][column] == pytest.approx(expected, abs=1e-9)
    assert len(display.squared_norms) == 50


def test_the_default_shows_layers_that_vary(norms):
    assert QuantileDisplay.from_features(norms, layer_names=list("abcd")).columns == [0, 1, 3]
    with pytest.raises(ValueError, match="'c' does not vary"):
        QuantileDisplay.from_features(norms, layer_names=list("abcd"), layers=["c"])


def test_norms_of_zero_count_as_the_smallest(norms):
    raised = norms.copy()
    raised[0, 0] = norms[1:, 0].min()
    norms[0, 0] = 0
    display = QuantileDisplay.from_features(norms)
    np.testing.assert_array_equal(
        display.ks_["chi2"], QuantileDisplay.from_features(raised).ks_["chi2"]
    )
    assert display.squared_norms.min() > 0


def test_the_picture_shows_distances_and_points(norms):
    display = QuantileDisplay.from_features(norms, layer_names=list("abcd")).plot()
    assert [ax.get_title() for ax in display.axes_[:3]] == ["a", "b", "d"]
    for i, column in enumerate(display.columns):
        ax = display.axes_[i]
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        for name, label, points in zip(display.ks_, labels, ax.collections, strict=True):
            assert label.endswith(f"KS {display.ks_[name][column]:.3f}")
            offsets = np.asarray(points.get_offsets())
            pairs = np.column_stack([display.quantiles[name][:, i], display.squared_norms[:, i]])
            # Both ends are drawn, and every point is one of the pairs.
            np.testing.assert_allclose(offsets[[0, -1]], np.log(pairs[[0, -1]]))
            distances = np.abs(offsets[:, None] - np.log(pairs)[None]).max(axis=2)
            assert distances.min(axis=1).max() < 1e-12
            assert 50 < len(offsets) <= 150
    summary = display.axes_[-1]
    assert "of 3)" in summary.get_title()
    assert [stairs.get_data().values.sum() for stairs in summary.patches] == [3, 3]


def test_without_the_summary_and_into_given_axes(norms):
    ax = Figure().subplots()
    display = QuantileDisplay.from_features(norms, layers=[0])
    assert display.plot(ax=ax, summary=False).axes_.tolist() == [ax]
    with pytest.raises(ValueError, match="2 axes"):
        display.plot(ax=ax)


def test_two_samples_are_enough():
    display = QuantileDisplay.from_features([[1.0, 2.0], [3.0, 8.0]]).plot()
    # Fitted to two points, each is one standard deviation from the mean of the logarithms.
    expected = scipy.stats.norm.cdf(1) - 0.5
    np.testing.assert_allclose(display.ks_["lognormal"], expected)


def test_measured_here(rng):
    X = rng.normal(size=(60, 3))
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, dtype="float64", random_state=0).fit(X)
    display = QuantileDisplay.from_estimator(net, X[:40], reference=X[40:], show=["mean"])
    norms = layer_gradient_norms(net.module_, X)
    np.testing.assert_allclose(display.squared_norms[:, 0], np.sort(norms[:40, 0]))
    marginal = frozen_marginals(norms[40:, 0])["lognormal"]
    expected = scipy.stats.kstest(norms[:40, 0], marginal.cdf).statistic
    assert display.ks_["lognormal"][0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, -2.0], [3.0, 1.0]], "[Nn]egative"),
        ([[1.0, np.nan], [3.0, 1.0]], "NaN"),
        ([[1.0, 1.0], [1.0, 1.0]], "none of the 2 columns varies"),
        ([[1.0, 1.0]], "minimum of 2"),
    ],
)
def test_what_are_no_squared_norms(values, message):
    with pytest.raises(ValueError, match=message):
        QuantileDisplay.from_features(values)


def test_without_matplotlib(norms, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"skgradood\[plot\]"):
        QuantileDisplay.from_features(norms).plot()

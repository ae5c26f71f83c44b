"""Histograms of log-likelihoods: areas, limits and AUROCs by direct computation."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from skgradood import GenerativeNet
from skgradood.inspection import LikelihoodDisplay
from skgradood.models import DiagonalGaussian


@pytest.fixture
def values(rng):
    return {"in": rng.normal(-100, 5, 300), "far": rng.normal(-80, 9, 200)}


def test_auroc_counts_pairs(values):
    values["tied"] = np.repeat(values["in"][:10], 2)
    display = LikelihoodDisplay.from_predictions(values)
    assert list(display.auroc_) == ["far", "tied"]
    for name, area in display.auroc_.items():
        less = values[name] < values["in"][:, None]
        equal = values[name] == values["in"][:, None]
        assert area == pytest.approx((less + equal / 2).mean())
    assert display.auroc_["far"] < 0.1  # the foreign set is the more likely one


def test_histograms_are_shares_of_the_values(values):
    display = LikelihoodDisplay.from_predictions(values).plot()
    filled, *outlines = display.ax_.patches
    np.testing.assert_array_equal(filled.get_data().values, outlines[0].get_data().values)
    for array, outline in zip(values.values(), outlines, strict=True):
        shares, edges, _ = outline.get_data()
        for share, low, high in zip(shares[:-1], edges[:-2], edges[1:-1], strict=True):
            assert share == pytest.approx(((array >= low) & (array < high)).mean())
        low, high = np.percentile(array, [0.5, 99.5])
        assert edges[0] <= low
        assert high <= edges[-1]


def test_bits_per_dimension(values):
    display = LikelihoodDisplay.from_predictions(values, n_features=50)
    display.plot(unit="bits_per_dim")
    low, high = display.ax_.patches[0].get_data().edges[[0, -1]]
    bits = np.concatenate([-array / (50 * np.log(2)) for array in values.values()])
    assert bits.min() <= low < np.median(bits) < high <= bits.max()
    left, right = display.ax_.get_xlim()
    assert left > right  # what is likely is on the right


def test_infinite_values_are_counted_in_the_legend(values):
    values["far"][:3] = -np.inf
    display = LikelihoodDisplay.from_predictions(values).plot()
    entries = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert entries == ["in", f"far (AUROC {display.auroc_['far']:.2f}, 3 of 200 infinite)"]
    shares = display.ax_.patches[2].get_data().values
    assert shares.sum() <= 197 / 200


def test_a_set_of_impossible_samples_only(values):
    LikelihoodDisplay.from_predictions({"in": [-np.inf, -np.inf]}).plot()
    display = LikelihoodDisplay.from_predictions(values | {"none": [-np.inf]}).plot()
    assert display.auroc_["none"] == 1


def test_measured_here(rng):
    X = rng.normal(size=(60, 3))
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, dtype="float64", random_state=0).fit(X)
    sets = {"in": X, "far": 3 + X[:20]}
    display = LikelihoodDisplay.from_estimator(net, sets)
    assert display.n_features == 3
    for name, samples in sets.items():
        np.testing.assert_allclose(display.log_likelihoods[name], net.score_samples(samples))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mapping from names to arrays"),
        ([1.0, 2.0], "mapping from names to arrays"),
        ({"in": []}, r"'in'\] must have shape \(n,\)"),
        ({"in": [[1.0]]}, r"got \(1, 1\)"),
        ({"in": [1.0, np.nan]}, "NaN; row 1"),
    ],
)
def test_what_is_no_log_likelihood(given, message):
    with pytest.raises(ValueError, match=message):
        LikelihoodDisplay.from_predictions(given)


def test_units(values):
    display = LikelihoodDisplay.from_predictions(values)
    with pytest.raises(ValueError, match="need n_features"):
        display.plot(unit="bits_per_dim")
    with pytest.raises(ValueError, match="unit must be one of"):
        display.plot(unit="bits")


def test_drawing_into_given_axes(values):
    ax = Figure().subplots()
    assert LikelihoodDisplay.from_predictions(values).plot(ax=ax).ax_ is ax


def test_without_matplotlib(values, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"skgradood\[plot\]"):
        LikelihoodDisplay.from_predictions(values).plot()

"""Pictures of log norms: the numbers drawn are those of a direct computation."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from skgradood import GenerativeNet, layer_gradient_norms
from skgradood.inspection import LayerCorrelationDisplay, LayerNormDisplay
from skgradood.models import DiagonalGaussian

ZERO_NORM = np.log(np.finfo(float).tiny)


@pytest.fixture
def sets(rng):
    mixing = rng.normal(size=(5, 5))
    return {
        "in": rng.normal(size=(80, 5)) @ mixing,
        "far": rng.normal(size=(60, 5)) @ mixing.T + 3,
    }


@pytest.fixture(scope="module")
def net():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return GenerativeNet(DiagonalGaussian, max_epochs=1, dtype="float64", random_state=0).fit(X)


def log_norms(net, X):
    return np.log(layer_gradient_norms(net.module_, X))


# --- correlation -----------------------------------------------------------------------------


def test_mean_and_spread_by_distance(sets):
    display = LayerCorrelationDisplay.from_features(sets)
    np.testing.assert_array_equal(display.distances_, [1, 2, 3, 4])
    for name, array in sets.items():
        for k, distance in enumerate(display.distances_):
            pairs = [
                np.corrcoef(array[:, i], array[:, j])[0, 1]
                for i, j in itertools.combinations(range(5), 2)
                if j - i == distance
            ]
            assert len(pairs) == 5 - distance
            assert display.mean_[name][k] == pytest.approx(np.mean(pairs))
            assert display.spread_[name][k] == pytest.approx(np.std(pairs), abs=1e-12)


def test_a_layer_that_does_not_vary_takes_no_part(sets):
    array = sets["in"].copy()
    array[:, 4] = ZERO_NORM
    display = LayerCorrelationDisplay.from_features({"in": array})
    without = LayerCorrelationDisplay.from_features({"in": array[:, :4]})
    np.testing.assert_allclose(display.mean_["in"], [*without.mean_["in"], np.nan])
    assert np.isnan(display.correlations["in"][4]).all()
    display.plot()


def test_correlation_curves_are_the_values(sets):
    display = LayerCorrelationDisplay.from_features(sets).plot()
    mean_axes, spread_axes = display.axes_
    for i, name in enumerate(sets):
        np.testing.assert_array_equal(mean_axes.lines[i + 1].get_ydata(), display.mean_[name])
        np.testing.assert_array_equal(spread_axes.lines[i].get_ydata(), display.spread_[name])
    looks = {(line.get_color(), line.get_linestyle()) for line in spread_axes.lines}
    assert len(looks) == 2
    assert [text.get_text() for text in spread_axes.get_legend().get_texts()] == ["in", "far"]


def test_correlation_measured_here(net, rng):
    sets = {"in": rng.normal(size=(30, 3)), "far": rng.normal(size=(30, 3)) * 3}
    display = LayerCorrelationDisplay.from_estimator(net, sets)
    for name, X in sets.items():
        expected = np.corrcoef(log_norms(net, X), rowvar=False)
        np.testing.assert_allclose(display.correlations[name], expected)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"a": np.ones((5, 1))}, "at least two layers"),
        ({"a": np.ones((1, 3))}, "'a' has one"),
        ({"a": np.ones((5, 3)), "b": np.ones((5, 2))}, "the same layers"),
        ({"a": [[0.0, np.inf], [0.0, 1.0]]}, "infinity"),
        ({}, "mapping"),
        (np.ones((5, 3)), "mapping from names of sets"),
    ],
)
def test_features_that_do_not_correlate(features, message):
    with pytest.raises(ValueError, match=message):
        LayerCorrelationDisplay.from_features(features)


# --- histograms and scatter ------------------------------------------------------------------


def test_histograms_are_densities_of_the_values(sets):
    display = LayerNormDisplay.from_features(sets, layer_names=list("abcde"), layers=["d", 0])
    assert list(display.layer_names) == ["d", "a"]
    display.plot()
    assert [ax.get_title() for ax in display.axes_] == ["d", "a", "two layers"]
    for ax, column in zip(display.axes_, [3, 0], strict=False):
        filled, *outlines = ax.patches
        np.testing.assert_array_equal(filled.get_data().values, outlines[0].get_data().values)
        for array, outline in zip(sets.values(), outlines, strict=True):
            values, edges, _ = outline.get_data()
            expected, _ = np.histogram(array[:, column], bins=edges, density=True)
            np.testing.assert_allclose(values, expected)
            assert edges[0] <= array[:, column].min()
            assert edges[-1] >= array[:, column].max()


def test_scatter_shows_the_pair(sets):
    display = LayerNormDisplay.from_features(sets)
    assert list(display.layer_names) == ["0", "2", "4"]
    for pair, (i, j) in {True: (0, 4), (1, 2): (2, 4), (0, -2): (0, 2)}.items():
        axes = display.plot(pair=pair).axes_
        for points, array in zip(axes[-1].collections, sets.values(), strict=True):
            np.testing.assert_array_equal(points.get_offsets(), array[:, [i, j]])
    labels = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    assert labels == ["in", "far"]
    assert len(display.plot(pair=False).axes_) == 3


def test_norms_of_zero_are_counted_and_left_out(sets):
    array = sets["in"].copy()
    array[:7, 0] = ZERO_NORM
    sets = {"in": array, "far": sets["far"], "blank": np.full((3, 5), ZERO_NORM)}
    display = LayerNormDisplay.from_features(sets, layers=[0, 1]).plot()
    assert "10 norms of zero left out" in display.axes_[0].get_xlabel()
    assert "3 norms of zero left out" in display.axes_[1].get_xlabel()
    assert display.axes_[0].get_xlim()[0] > -100
    assert len(display.axes_[-1].collections[0].get_offsets()) == 80 - 7
    assert len(display.axes_[-1].collections[2].get_offsets()) == 0


def test_names_come_from_a_frame(sets):
    frames = {name: pd.DataFrame(array, columns=list("abcde")) for name, array in sets.items()}
    assert LayerNormDisplay.from_features(frames).layer_names == ["a", "c", "e"]
    assert LayerNormDisplay.from_features({"x": sets["in"][:, :1]}).plot().axes_.shape == (1,)


def test_norms_measured_here(net, rng):
    sets = {"in": rng.normal(size=(20, 3)), "far": rng.normal(size=(20, 3)) * 3}
    display = LayerNormDisplay.from_estimator(net, sets, show=["log_scale"])
    assert display.layer_names == ["log_scale"]
    for name, X in sets.items():
        np.testing.assert_allclose(display.features[name][:, 0], log_norms(net, X)[:, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["encodr"]}, "no layer 'encodr'; there are 'encoder', ..."),
        ({"layers": [5]}, "no layer 5"),
        ({"layers": []}, "at least one"),
        ({"layers": "encoder"}, "a list"),
        ({"layer_names": ["a"]}, "5 columns, but layer_names has 1"),
    ],
)
def test_wrong_choices(sets, options, message):
    names = {"layer_names": ["encoder", "b", "c", "d", "e"]}
    with pytest.raises(ValueError, match=message):
        LayerNormDisplay.from_features(sets, **(names | options))


# --- axes ------------------------------------------------------------------------------------


def test_drawing_into_given_axes(sets):
    axes = Figure().subplots(2, 2)
    display = LayerNormDisplay.from_features(sets).plot(ax=axes)
    assert display.axes_.tolist() == axes.ravel().tolist()
    assert LayerCorrelationDisplay.from_features(sets).plot(ax=axes[0]).figure_ is axes[0, 0].figure
    with pytest.raises(ValueError, match="4 axes, one for each panel; got 2"):
        display.plot(ax=axes[0])


@pytest.mark.parametrize("display", [LayerNormDisplay, LayerCorrelationDisplay])
def test_without_matplotlib(display, sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"skgradood\[plot\]"):
        display.from_features(sets).plot()

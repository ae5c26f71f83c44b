"""Sweeps: every number is the one that the function gave."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from skgradood.datasets import perturb
from skgradood.inspection import SweepDisplay
from skgradood.metrics import auroc
from skgradood.models import PixelDifferenceModel

VALUES = [0.5, 1.0, 2.0]


@pytest.fixture
def results(rng):
    return {"a": rng.random((3, 4)), "b": rng.random((3, 4))}


def test_mean_and_spread_over_repetitions(results):
    display = SweepDisplay.from_results(VALUES, results)
    for name, array in results.items():
        np.testing.assert_allclose(display.mean_[name], [np.mean(row) for row in array])
        expected = [np.sqrt(sum((row - row.mean()) ** 2) / 3) for row in array]
        np.testing.assert_allclose(display.spread_[name], expected)


def test_a_single_repetition_has_no_spread():
    display = SweepDisplay.from_results(VALUES, {"a": [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(display.mean_["a"], [1, 2, 3])
    np.testing.assert_array_equal(display.spread_["a"], 0)


def test_the_function_gets_every_value_with_the_same_seeds():
    calls = []

    def measured(value, seed):
        calls.append((value, seed))
        return {"sum": value + seed % 7}

    display = SweepDisplay.from_function(measured, VALUES, n_repetitions=3, random_state=0)
    seeds = [seed for _, seed in calls[:3]]
    assert len(set(seeds)) == 3
    assert calls == [(value, seed) for value in VALUES for seed in seeds]
    expected = [[value + seed % 7 for seed in seeds] for value in VALUES]
    np.testing.assert_array_equal(display.results["sum"], expected)


def test_a_brightness_sweep_is_what_a_loop_computes(rng):
    walk = 128 + rng.integers(-9, 10, (60, 8, 8)).cumsum(axis=1).cumsum(axis=2)
    X = walk.clip(0, 255).astype(np.uint8)
    model = PixelDifferenceModel().fit(X[:30])

    def detected(factor, seed):
        chosen = np.random.default_rng(seed).choice(np.arange(30, 60), 20, replace=False)
        changed = perturb(X[chosen], "brightness", severity=factor)
        return {"AUROC": auroc(model.score_samples(X[chosen]), model.score_samples(changed))}

    display = SweepDisplay.from_function(detected, VALUES, n_repetitions=2, random_state=1)
    for i, factor in enumerate(VALUES):
        for j, seed in enumerate(np.random.RandomState(1).randint(2**31, size=2)):
            chosen = np.random.default_rng(seed).choice(np.arange(30, 60), 20, replace=False)
            changed = np.clip(np.rint(factor * X[chosen]), 0, 255).astype(np.uint8)
            pairs = np.subtract.outer(model.score_samples(X[chosen]), model.score_samples(changed))
            expected = (pairs > 0).mean() + (pairs == 0).mean() / 2
            assert display.results["AUROC"][i, j] == pytest.approx(expected)
    assert display.mean_["AUROC"][1] == pytest.approx(0.5)  # a factor of one changes nothing


def test_lines_and_bands_are_the_values(results):
    display = SweepDisplay.from_results(VALUES, results, value_name="width").plot(scale="log")
    chance, *lines = display.ax_.lines
    assert list(chance.get_ydata()) == [0.5, 0.5]
    for line, band, name in zip(lines, display.ax_.collections, results, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), VALUES)
        np.testing.assert_array_equal(line.get_ydata(), display.mean_[name])
        heights = band.get_paths()[0].vertices[:, 1]
        top = (display.mean_[name] + display.spread_[name]).max()
        assert heights.max() == pytest.approx(top)
    assert display.ax_.get_xscale() == "log"
    assert display.ax_.get_xlabel() == "width"
    assert len(display.plot(ax=Figure().subplots(), chance=None).ax_.lines) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mapping from names of curves"),
        ([0.5], "mapping from names of curves"),
        ({"a": [0.5, 0.6]}, r"\(3,\) or \(3, r\).*got \(2,\)"),
        ({"a": np.ones((3, 0))}, r"got \(3, 0\)"),
    ],
)
def test_results_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        SweepDisplay.from_results(VALUES, given)


def test_wrong_options(results):
    with pytest.raises(ValueError, match="got 0 values"):
        SweepDisplay.from_function(lambda value, seed: {}, [])
    with pytest.raises(ValueError, match="n_repetitions=0"):
        SweepDisplay.from_function(lambda value, seed: {}, [1], n_repetitions=0)
    with pytest.raises(ValueError, match="scale must be"):
        SweepDisplay.from_results(VALUES, results).plot(scale="logit")

"""ROSE: the published formulae, brute force, and what becomes of unusual columns and rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skgradood.detectors import RoseDetector
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.persistence import load, save

RNG = np.random.default_rng(0)
TRAIN = RNG.chisquare(5, size=(200, 4)) * [1.0, 10.0, 1e-3, 1e6]
TEST = RNG.chisquare(9, size=(50, 4)) * [1.0, 10.0, 1e-3, 1e6]


def by_the_formula(row, power, weights):
    """Sums and roots over layers, as the paper writes them."""
    z = [(row[i] - np.mean(TRAIN[:, i])) / np.std(TRAIN[:, i]) for i in range(4)]
    if power == np.inf:
        return max(z[i] for i in range(4) if weights[i] > 0)
    return sum(weights[i] * max(z[i], 0.0) ** power for i in range(4)) ** (1 / power)


@pytest.mark.parametrize("power", [1, 2, 3.5, 40, np.inf])
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [0.5, 2, 0, 1]])
def test_scores_are_the_formula(power, weights):
    detector = RoseDetector(power=power, weights=weights).fit(TRAIN)
    expected = [-by_the_formula(row, power, weights) for row in TEST]
    np.testing.assert_allclose(detector.score_samples(TEST), expected, rtol=1e-10)


def test_the_largest_is_the_limit_of_the_power_sum_where_it_is_positive():
    largest = RoseDetector().fit(TRAIN).score_samples(TEST)
    power_sum = RoseDetector(power=5000).fit(TRAIN).score_samples(TEST)
    assert (largest < 0).sum() > 40
    np.testing.assert_allclose(power_sum, np.minimum(largest, 0), rtol=1e-3)


def test_below_the_mean_everywhere():
    """The rectified sum ties such rows at 0; the published maximum still ranks them."""
    rows = np.array([TRAIN.mean(axis=0) * 0.5, TRAIN.mean(axis=0) * 0.9])
    np.testing.assert_array_equal(RoseDetector(power=2).fit(TRAIN).score_samples(rows), [0, 0])
    deep, shallow = RoseDetector().fit(TRAIN).score_samples(rows)
    assert deep > shallow > 0


def test_weights_by_name_and_by_number():
    names = ["a", "b", "c", "d"]
    frame, test = pd.DataFrame(TRAIN, columns=names), pd.DataFrame(TEST, columns=names)
    expected = RoseDetector(power=2, weights=[1, 3, 1, 0]).fit(TRAIN).score_samples(TEST)
    by_name = RoseDetector(power=2, weights={"b": 3, "d": 0}).fit(frame)
    by_number = RoseDetector(power=2, weights={1: 3, 3: 0}).fit(TRAIN)
    np.testing.assert_array_equal(by_name.score_samples(test), expected)
    np.testing.assert_array_equal(by_number.score_samples(TEST), expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"e": 1.0}, r"unknown columns \['e'\]"),
        ([1, 2], r"shape \(4,\); got \(2,\)"),
        ([1, 2, -1, 1], "not negative"),
        ([1, np.nan, 1, 1], "finite"),
        ([0, 0, 0, 0], "at least one must be positive"),
    ],
)
def test_weights_that_cannot_be_used(weights, message):
    with pytest.raises(ValueError, match=message):
        RoseDetector(weights=weights).fit(TRAIN)


@pytest.mark.parametrize("power", [0.5, 0, -1, np.nan])
def test_powers_that_make_no_norm(power):
    with pytest.raises(ValueError, match="power"):
        RoseDetector(power=power).fit(TRAIN)


def test_constant_columns_are_dropped_with_a_warning():
    train, test = np.insert(TRAIN, 2, 7.0, axis=1), np.insert(TEST, 2, -1e9, axis=1)
    with pytest.warns(UserWarning, match=r"1 of 5 columns do not vary.*\[2\]"):
        detector = RoseDetector(power=2, weights=[1, 2, 9, 3, 4]).fit(train)
    assert detector.dropped_features_ == [2]
    expected = RoseDetector(power=2, weights=[1, 2, 3, 4]).fit(TRAIN)
    np.testing.assert_array_equal(detector.score_samples(test), expected.score_samples(TEST))
    z = detector.layer_scores(test)
    assert (z[:, 2] == 0).all()
    np.testing.assert_allclose(
        z[:, [0, 1, 3, 4]], (TEST - TRAIN.mean(axis=0)) / TRAIN.std(axis=0), rtol=1e-10
    )
    with pytest.raises(ValueError, match="none of the 2 columns varies"):
        RoseDetector().fit(np.ones((5, 2)))


def test_columns_that_vary_little_for_their_size_are_told_as_such():
    with pytest.raises(ValueError, match=r"more than 1e-06 of its size .* subtract a constant"):
        RoseDetector().fit(TRAIN[:, :2] + 1e9)
    offsets = np.array([1e9, 0, 0, 0])
    with pytest.warns(UserWarning, match=r"more than 1e-06 of their size .*\[0\]. .* standardise"):
        RoseDetector().fit(TRAIN + offsets)


@pytest.mark.parametrize("power", [1, np.inf])
def test_rows_that_are_not_finite(power):
    train = np.vstack([TRAIN, [[np.nan, 1, 1, 1], [np.inf, 1, 1, 1]]])
    with pytest.warns(UserWarning, match="2 of 202 training rows"):
        detector = RoseDetector(power=power).fit(train)
    test = np.array([[np.nan, 5, 0, 5e6], [5, -np.inf, 0, 5e6], [5, 50, 5e-3, 5e6]])
    scores = detector.score_samples(test)
    assert (scores[:2] == -np.inf).all()
    assert np.isfinite(scores[2])
    assert detector.predict(test).tolist() == [-1, -1, 1]
    assert np.isnan(detector.layer_scores(test)).all(axis=1).tolist() == [True, True, False]
    expected = RoseDetector(power=power).fit(TRAIN).score_samples(TEST)
    np.testing.assert_array_equal(detector.score_samples(TEST), expected)


@pytest.mark.parametrize("power", [1, 7, np.inf])
def test_far_outliers_rank_and_stay_finite(power):
    detector = RoseDetector(power=power).fit(TRAIN)
    rows = np.tile(TRAIN.mean(axis=0), (300, 1))
    rows[:, 0] = np.geomspace(10, 1e90, 300)
    scores = detector.score_samples(rows)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0).all()
    assert np.isfinite(detector.score_samples(np.full((1, 4), 1e308))).all()


@given(st.floats(1, 50), st.permutations(range(4)), st.floats(1e-3, 1e3))
def test_neither_order_nor_unit_of_the_columns_matters(power, order, unit):
    expected = RoseDetector(power=power).fit(TRAIN).score_samples(TEST)
    changed = RoseDetector(power=power).fit(unit * TRAIN[:, order])
    scores = changed.score_samples(unit * TEST[:, order])
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-10)


def test_grid_search_clone_and_saved_files(tmp_path):
    X = np.vstack([TRAIN, TEST * [1, 1, 1, 5]])
    y = np.repeat([1, -1], [len(TRAIN), len(TEST)])
    search = GridSearchCV(
        RoseDetector(weights={3: 2.0}),
        {"power": [1, np.inf]},
        cv=InlierKFold(3),
        scoring=outlier_scorer("roc_auc"),
    ).fit(X, y)
    assert search.best_score_ > 0.8
    detector = clone(search.best_estimator_).fit(TRAIN)
    save(detector, tmp_path / "rose.skg")
    loaded = load(tmp_path / "rose.skg")
    np.testing.assert_array_equal(loaded.score_samples(TEST), detector.score_samples(TEST))

"""Rank correlations against SciPy's."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from skgradood.inspection import RankCorrelationDisplay


@pytest.fixture
def scores(rng):
    mixing = rng.normal(size=(3, 3))
    columns = np.round(rng.normal(size=(50, 3)) @ mixing, 1).T  # rounded: there are ties
    return dict(zip("abc", columns, strict=True))


GROUPS = np.repeat(["first", "second"], 25)


def test_every_correlation_is_that_of_scipy(scores):
    display = RankCorrelationDisplay.from_predictions(scores, groups=GROUPS)
    for i, row in enumerate(scores.values()):
        for j, column in enumerate(scores.values()):
            expected = spearmanr(row, column).statistic
            assert display.correlations_[i, j] == pytest.approx(expected)
            for name in ("first", "second"):
                chosen = np.isin(GROUPS, name)
                expected = spearmanr(row[chosen], column[chosen]).statistic
                assert display.by_group_[name][i, j] == pytest.approx(expected)


def test_rows_against_other_columns(scores):
    rows = {"a": scores["a"]}
    columns = {"minus a": -scores["a"], "c": scores["c"]}
    display = RankCorrelationDisplay.from_predictions(rows, against=columns)
    assert display.correlations_.shape == (1, 2)
    assert display.correlations_[0, 0] == pytest.approx(-1)
    assert display.by_group_ == {}


def test_only_the_order_counts_and_infinite_values_have_one(scores):
    display = RankCorrelationDisplay.from_predictions(
        {"a": scores["a"]}, against={"exp": np.exp(5 * scores["a"])}
    )
    assert display.correlations_[0, 0] == pytest.approx(1)
    broken = np.where(np.arange(50) == 0, -np.inf, scores["a"])
    lowered = np.where(np.arange(50) == 0, -1e9, scores["a"])
    both = RankCorrelationDisplay.from_predictions({"a": scores["b"]}, against={"x": broken})
    same = RankCorrelationDisplay.from_predictions({"a": scores["b"]}, against={"x": lowered})
    np.testing.assert_array_equal(both.correlations_, same.correlations_)


def test_what_does_not_vary_has_no_correlation(scores):
    display = RankCorrelationDisplay.from_predictions(scores | {"c": np.ones(50)})
    assert np.isnan(display.correlations_[2]).all()
    assert np.isfinite(display.correlations_[:2, :2]).all()
    display.plot()


def test_the_matrix_shows_its_numbers(scores):
    display = RankCorrelationDisplay.from_predictions(scores, groups=GROUPS).plot()
    matrices = [display.correlations_, display.by_group_["first"], display.by_group_["second"]]
    assert [ax.get_title() for ax in display.axes_] == ["all samples", "first", "second"]
    for ax, matrix in zip(display.axes_, matrices, strict=True):
        assert [text.get_text() for text in ax.texts] == [f"{v:.2f}" for v in matrix.ravel()]
        np.testing.assert_array_equal(ax.images[0].get_array(), matrix)


def test_groups_are_the_rows_of_one_panel_where_there_is_one_row(scores):
    display = RankCorrelationDisplay.from_predictions(
        {"a": scores["a"]}, against=scores, groups=GROUPS
    ).plot()
    (ax,) = display.axes_
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["all samples", "first", "second"]
    expected = [display.correlations_[0], *(display.by_group_[name][0] for name in labels[1:])]
    np.testing.assert_array_equal(ax.images[0].get_array(), expected)


def test_scatters_show_each_pair_once(scores):
    display = RankCorrelationDisplay.from_predictions(scores, groups=GROUPS).plot(kind="scatter")
    labels = [(ax.get_ylabel(), ax.get_xlabel()) for ax in display.axes_]
    assert labels == [
        ("rank by b", "rank by a"), ("rank by c", "rank by a"), ("rank by c", "rank by b")
    ]  # fmt: skip
    first, second = display.axes_[0].collections
    points = np.concatenate([first.get_offsets(), second.get_offsets()])
    assert spearmanr(points).statistic == pytest.approx(display.correlations_[1, 0])
    less, equal = (
        [f(scores["a"], value).sum() for value in scores["a"]] for f in (np.less, np.equal)
    )
    np.testing.assert_allclose(points[:, 0], np.add(less, (np.array(equal) + 1) / 2))
    against = RankCorrelationDisplay.from_predictions(scores, against={"x": scores["a"]})
    assert len(against.plot(kind="scatter").axes_) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"against": {"x": [1.0]}}, "of the same samples"),
        ({"groups": ["g"]}, "'groups': 1"),
        ({"against": {"x": [np.nan] * 50}}, "NaN"),
        ({"against": {}}, "against must be a mapping"),
    ],
)
def test_what_does_not_belong_together(scores, options, message):
    with pytest.raises(ValueError, match=message):
        RankCorrelationDisplay.from_predictions(scores, **options)


def test_axes_and_kinds(scores):
    display = RankCorrelationDisplay.from_predictions(scores)
    with pytest.raises(ValueError, match="kind must be"):
        display.plot(kind="heat")
    with pytest.raises(ValueError, match="must hold 3 axes"):
        display.plot(kind="scatter", ax=Figure().subplots())
    ax = Figure().subplots()
    assert display.plot(ax=ax).axes_.tolist() == [ax]

"""The picture of a comparison shows the numbers it was given."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from skgradood.inspection import ComparisonDisplay

TABLE = {"noise": {"a": 0.9, "b": 1.0}, "gaussian_blur": {"a": 0.4, "b": 0.6}}


def test_markers_are_the_values():
    display = ComparisonDisplay(TABLE).plot(title="comparison")
    first, second = display.ax_.collections[:2]
    np.testing.assert_array_equal(first.get_offsets()[:, 0], [0.9, 0.4])
    np.testing.assert_array_equal(second.get_offsets()[:, 0], [1.0, 0.6])
    for collection in (first, second):  # each in the row of its set, none on top of another
        np.testing.assert_array_equal(np.rint(collection.get_offsets()[:, 1]), [0, 1])
    assert (first.get_offsets()[:, 1] != second.get_offsets()[:, 1]).all()
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["noise", "gaussian blur"]
    legend = display.ax_.get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["a", "b"]
    assert display.ax_.get_xlabel() == "AUROC"
    assert display.ax_.get_title() == "comparison"


def test_drawing_into_given_axes():
    ax = Figure().subplots()
    display = ComparisonDisplay(TABLE, metric_name="AP", chance=None).plot(ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert not ax.lines


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"skgradood\[plot\]"):
        ComparisonDisplay(TABLE).plot()

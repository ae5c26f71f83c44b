"""Runtimes: what is timed, how often, and which time counts."""

import time

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from skgradood.inspection import RuntimeDisplay
from skgradood.metrics import auroc


class Scores:
    """Scores a sample by its first feature, after waiting as long as told, call by call."""

    def __init__(self, *waits):
        self.waits = list(waits)

    def score_samples(self, X):
        time.sleep(self.waits.pop(0) if self.waits else 0)
        return X[:, 0]


class Opposite(Scores):
    def score_samples(self, X):
        return -super().score_samples(X)


@pytest.fixture
def sets(rng):
    return rng.normal(size=(40, 2)), {
        "near": rng.normal(size=(30, 2)) - 1,
        "far": -9 * np.ones((5, 2)),
    }


def test_the_shortest_time_a_sample_counts(sets):
    X, ood = sets
    detectors = {"slow": Scores(0.3, 0.1, 0.3), "fast": Opposite(0.0)}
    display = RuntimeDisplay.from_estimators(detectors, X, ood)
    assert 0.1 <= 40 * display.seconds["slow"] < 0.3
    assert display.seconds["fast"] < display.seconds["slow"]


def test_areas_are_those_of_the_scores(sets):
    X, ood = sets
    detectors = {"a": Scores(), "b": Opposite()}
    display = RuntimeDisplay.from_estimators(detectors, X, ood, n_repetitions=1)
    for name, sign in (("a", 1), ("b", -1)):
        expected = {key: auroc(sign * X[:, 0], sign * Y[:, 0]) for key, Y in ood.items()}
        assert {key: row[name] for key, row in display.aurocs.items()} == expected
        assert display.mean_[name] == pytest.approx(sum(expected.values()) / 2)
        assert display.worst_[name] == min(expected.values())


def test_markers_are_the_values():
    aurocs = {"x": {"a": 0.9, "b": 0.6}, "y": {"a": 0.7, "b": 0.8}}
    display = RuntimeDisplay({"a": 0.002, "b": 0.01}, aurocs).plot(ax=Figure().subplots())
    markers = [item for item in display.ax_.collections if isinstance(item, PathCollection)]
    points = np.concatenate([marker.get_offsets() for marker in markers])
    np.testing.assert_allclose(points, [[2, 0.7], [2, 0.8], [10, 0.6], [10, 0.7]])
    assert display.ax_.get_xscale() == "log"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["a", "b"]


def test_nothing_to_measure(sets):
    X, ood = sets
    for detectors, others, n in (({}, ood, 1), ({"a": Scores()}, {}, 1), ({"a": Scores()}, ood, 0)):
        with pytest.raises(ValueError, match="at least one detector, one OOD set"):
            RuntimeDisplay.from_estimators(detectors, X, others, n_repetitions=n)

"""scikit-learn's own detectors in saved pipelines: equal after loading, refused when tampered."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skgradood import ConformalDetector
from skgradood.persistence import load, save
from skgradood.persistence._codecs import codec_of

DETECTORS = {
    "lof": LocalOutlierFactor(novelty=True),
    "lof, kd tree": LocalOutlierFactor(novelty=True, algorithm="kd_tree", leaf_size=5),
    "lof, ball tree": LocalOutlierFactor(novelty=True, algorithm="ball_tree", metric="manhattan"),
    "lof, brute": LocalOutlierFactor(novelty=True, algorithm="brute", metric="cosine"),
    "lof, with options": LocalOutlierFactor(
        novelty=True, metric="seuclidean", metric_params={"V": np.array([1.0, 2.0, 3.0, 4.0])}
    ),
    "forest": IsolationForest(n_estimators=7, random_state=0),
    "forest of a few columns": IsolationForest(
        n_estimators=5, max_features=0.5, max_samples=30, contamination=0.2, random_state=1
    ),
    "svm": OneClassSVM(nu=0.2),
    "envelope": EllipticEnvelope(random_state=0),
    "mixture": GaussianMixture(2, random_state=0),
}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 4)) @ rng.normal(size=(4, 4))


@pytest.mark.parametrize("case", DETECTORS)
def test_scores_are_equal_bit_for_bit(case, rows, tmp_path):
    detector = make_pipeline(StandardScaler(), DETECTORS[case]).fit(rows[:60])
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    for method in ("score_samples", "predict"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(rows), getattr(detector, method)(rows)
        )
    assert repr(loaded) == repr(detector)
    # What was loaded can be saved, and fitted, again.
    save(loaded, tmp_path / "again.skg")
    again = load(tmp_path / "again.skg")
    np.testing.assert_array_equal(again.score_samples(rows), detector.score_samples(rows))
    refitted = loaded.fit(rows).score_samples(rows)
    np.testing.assert_array_equal(refitted, detector.fit(rows).score_samples(rows))


@pytest.mark.parametrize("case", ["lof", "forest", "svm"])
def test_before_fitting_and_inside_another_detector(case, rows, tmp_path):
    save(DETECTORS[case], tmp_path / "detector.skg")
    assert repr(load(tmp_path / "detector.skg")) == repr(DETECTORS[case])
    detector = ConformalDetector(DETECTORS[case], random_state=0).fit(rows)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.p_values(rows), detector.p_values(rows))


def test_a_metric_of_the_users_own_is_code(rows, tmp_path):
    def metric(a, b):
        return np.abs(a - b).sum()

    detector = LocalOutlierFactor(novelty=True, metric=metric).fit(rows)
    with pytest.raises(TypeError, match=r"metric cannot be saved: functions are code"):
        save(detector, tmp_path / "detector.skg")


def fitted_state(detector, rows):
    """What a file would hold of a detector, its arrays free to be tampered with."""

    def copied(value):
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return value.copy() if isinstance(value, np.ndarray) else value

    return copied(codec_of(type(detector)).export(detector.fit(rows)))


def first_inner(state):
    return int(np.argmax(state["nodes"]["left_child"] >= 0))


def set_node(name, value):
    def tamper(state):
        state["nodes"][name][first_inner(state)] = value

    return tamper


def replace(name, value):
    def tamper(state):
        state[name] = value

    return tamper


FOREST = {
    "child far away": (set_node("left_child", 10**6), "leads outside its tree"),
    "child before": (set_node("right_child", 0), "leads outside its tree"),
    "one child": (set_node("left_child", -1), "leads outside its tree"),
    "no such feature": (set_node("feature", 4), "another than 4 features"),
    "negative feature": (set_node("feature", -2), "another than 4 features"),
    "no trees": (replace("tree_sizes", np.array([], dtype=int)), "must have trees"),
    "empty tree": (replace("tree_sizes", np.array([0, 5])), "must have trees"),
    "other numbers": (replace("tree_sizes", np.array([1, 1])), "one for each node"),
    "fewer values": (lambda s: s.update(values=s["values"][1:]), "other numbers of values"),
    "values of text": (lambda s: s.update(values=s["values"].astype(str)), "other numbers"),
    "fewer seeds": (replace("tree_seeds", np.array([1])), "trees of an IsolationForest lack"),
    "column missing": (lambda s: s["nodes"].pop("feature"), "was the file saved under another"),
    "column of text": (
        lambda s: s["nodes"].update(feature=s["nodes"]["feature"].astype(str)),
        "nodes' feature have dtype",
    ),
}
LOF = {
    "rows of others": (lambda s: s.update(_fit_X=s["_fit_X"][1:]), "rows of 4 features"),
    "fewer features": (lambda s: s.update(_fit_X=s["_fit_X"][:, 1:]), "rows of 3 features"),
    "density missing": (lambda s: s.pop("_lrd"), "and others"),
    "distances missing": (lambda s: s.pop("_distances_fit_X_"), "and others"),
    "another method": (replace("_fit_method", "precomputed"), "no method"),
    "another metric": (replace("effective_metric_", "os.system"), "os.system"),
    "no metric": (replace("effective_metric_", None), "no metric"),
}


@pytest.mark.parametrize("case", FOREST)
def test_forests_that_are_none_are_refused(case, rows):
    tamper, complaint = FOREST[case]
    state = fitted_state(IsolationForest(n_estimators=2, random_state=0), rows)
    tamper(state)
    with pytest.raises(ValueError, match=complaint):
        codec_of(IsolationForest).restore(object.__new__(IsolationForest), state)


@pytest.mark.parametrize("case", LOF)
def test_neighbours_that_are_none_are_refused(case, rows):
    tamper, complaint = LOF[case]
    state = fitted_state(LocalOutlierFactor(novelty=True), rows)
    tamper(state)
    with pytest.raises(ValueError, match=complaint):
        codec_of(LocalOutlierFactor).restore(object.__new__(LocalOutlierFactor), state)

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KernelDensity
from sklearn.svm import OneClassSVM

from skgradood.utils.scores import normality_scores


class Scorer:
    def __init__(self, output):
        self.output = output

    def decision_function(self, X):
        return self.output


def test_score_samples_comes_first():
    X = np.random.default_rng(0).normal(size=(20, 2))
    model = OneClassSVM().fit(X)
    np.testing.assert_array_equal(normality_scores(model, X), model.score_samples(X))
    density = KernelDensity().fit(X)
    np.testing.assert_array_equal(normality_scores(density, X), density.score_samples(X))


def test_decision_function_is_the_fall_back_and_nan_a_certain_outlier():
    scores = normality_scores(Scorer([1, np.nan, np.inf]), None)
    assert scores.dtype == np.float64
    assert scores.tolist() == [1.0, -np.inf, np.inf]


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="object has none of the methods score_samples"):
        normality_scores(object(), None)
    with pytest.raises(ValueError, match=r"Scorer.decision_function.*\(n,\).*\(2, 1\)"):
        normality_scores(Scorer([[1.0], [2.0]]), None)

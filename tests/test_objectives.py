"""Objectives of classifiers against their closed forms, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from skgradood import ChiSquareJointDensity, GradientNormTransformer
from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout
from skgradood.objectives import kl_to_uniform, predicted_label_log_prob
from skgradood.persistence import load, save


class Classifier(nn.Module):
    def __init__(self, n_columns, n_classes):
        super().__init__()
        self.n_columns, self.n_classes = n_columns, n_classes
        self.linear = nn.Linear(n_columns, n_classes)

    def forward(self, X):
        return self.linear(X)


@pytest.fixture
def rows(rng):
    return rng.normal(size=(30, 3))


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return nn.Linear(3, 4).double()


def probabilities(classifier, rows):
    return scipy.special.softmax(
        rows @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy(), axis=1
    )


def norms(classifier, rows, objective):
    engine = GradientEngine(classifier, log_likelihood=objective)
    reducer = SquaredNorms(layer_layout(classifier))
    values = engine.run(torch.as_tensor(rows), reducer)
    assert engine.strategy == "capture"
    return values, reducer.result()


def test_kl_to_uniform(classifier, rows):
    p = probabilities(classifier, rows)
    values, squares = norms(classifier, rows, kl_to_uniform)
    np.testing.assert_allclose(values, scipy.special.rel_entr(0.25, p).sum(axis=1), rtol=1e-10)
    # The gradient with respect to the logits is p - u, and the weight's its product with x.
    of_bias = ((p - 0.25) ** 2).sum(axis=1)
    expected = np.column_stack([of_bias * (rows**2).sum(axis=1), of_bias])
    np.testing.assert_allclose(squares, expected, rtol=1e-9)


def test_predicted_label_log_prob(classifier, rows):
    p = probabilities(classifier, rows)
    values, squares = norms(classifier, rows, predicted_label_log_prob)
    np.testing.assert_allclose(values, np.log(p.max(axis=1)), rtol=1e-10)
    of_bias = ((np.eye(4)[p.argmax(axis=1)] - p) ** 2).sum(axis=1)
    expected = np.column_stack([of_bias * (rows**2).sum(axis=1), of_bias])
    np.testing.assert_allclose(squares, expected, rtol=1e-9)


def test_confident_rows_have_the_larger_gradient_of_gradnorm(rng):
    """Orientation: far out on one side of a linear classifier the prediction is certain."""
    classifier = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(2))
    _, certain = norms(classifier, np.array([[9.0, 0.0], [9.0, 9.0]]), kl_to_uniform)
    assert certain[0] > certain[1] + 1


def test_in_a_pipeline_that_is_saved(rows, tmp_path):
    features = GradientNormTransformer(Classifier(3, 4), log_likelihood=kl_to_uniform, output="log")
    detector = make_pipeline(features, ChiSquareJointDensity()).fit(rows)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg", modules=[Classifier])
    np.testing.assert_array_equal(loaded.score_samples(rows), detector.score_samples(rows))


@pytest.mark.parametrize(
    "module", [nn.Flatten(0), nn.Linear(3, 1).double(), nn.LSTM(3, 2).double()]
)
def test_what_returns_no_logits_is_refused(module, rows):
    for objective in (kl_to_uniform, predicted_label_log_prob):
        with pytest.raises(TypeError, match=r"must return logits, \(30, K\) with K >= 2"):
            objective(module, torch.as_tensor(rows), torch.Generator())

"""Models whose Fisher information is known, against quadrature and other formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.nn.utils import parameters_to_vector

from skgradood.models import DiagonalGaussian, GenerativeNet, LinearFlow


def rows(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2)


def make(module, d=3):
    model = module((d,)).double()
    model.initialize(rows(d=d))
    return model


def score(model, x):
    gradients = torch.autograd.grad(model.log_prob(x[None]).sum(), list(model.parameters()))
    return parameters_to_vector(gradients)


@pytest.mark.parametrize("module", [DiagonalGaussian, LinearFlow])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_fisher_information_is_the_expectation_of_outer_products(module, d):
    """Scores are quadratic in z: three Gauss-Hermite nodes a dimension integrate them exactly."""
    model = make(module, d)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    expected = torch.zeros(())
    with torch.no_grad():
        A = model.matrix() if module is LinearFlow else model.log_scale.exp().diag()
        b = (model.shift if module is LinearFlow else model.mean).clone()
    for index in itertools.product(range(3), repeat=d):
        gradient = score(model, A @ torch.from_numpy(nodes[list(index)]) + b)
        expected = expected + weights[list(index)].prod() * torch.outer(gradient, gradient)
    fisher = model.fisher_information()
    torch.testing.assert_close(fisher, expected)
    assert torch.linalg.eigvalsh(fisher).min() > 0


def test_the_score_is_the_one_documented():
    model, x = make(LinearFlow), rows(seed=1)[0]
    A, z = model.matrix().detach(), model.encode(x[None])[0].detach()
    of_matrix = torch.linalg.solve(A.T, torch.outer(z, z) - torch.eye(3).double())
    expected = [
        torch.linalg.solve(A.T, z),
        of_matrix[model.rows, model.columns],
        of_matrix.diagonal() * A.diagonal(),
    ]
    torch.testing.assert_close(score(model, x), torch.cat(expected))


def test_a_linear_flow_is_the_normal_distribution():
    X = rows()
    model = make(LinearFlow)
    expected = multivariate_normal(X.mean(0), np.cov(X.T, bias=True)).logpdf(X)
    np.testing.assert_allclose(model.log_prob(X).detach(), expected)
    torch.testing.assert_close(model.encode(X).T.cov(correction=0), torch.eye(3).double())
    drawn = model.sample(20_000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T, bias=True), atol=0.3)


def test_data_without_an_inverse_covariance_keep_the_density_finite():
    X = rows()
    X[:, 2] = X[:, 0]
    for degenerate in (X, X[:2], torch.ones(5, 3).double()):
        model = LinearFlow((3,)).double()
        model.initialize(degenerate)
        assert model.log_prob(degenerate).isfinite().all()


def test_training_keeps_the_maximum_of_the_likelihood():
    X = rows(300).numpy()
    net = GenerativeNet(LinearFlow, max_epochs=5, random_state=0).fit(X)
    best = multivariate_normal(X.mean(0), np.cov(X.T, bias=True)).logpdf(X).mean()
    assert best - 0.01 < net.score(X) < best + 1e-5

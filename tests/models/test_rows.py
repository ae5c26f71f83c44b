"""The models of rows against independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from skgradood.models import DiagonalGaussian, GenerativeNet, NeuralSplineFlow, RealNVP

FLOWS = {
    "affine": lambda d: RealNVP((d,), n_layers=3, hidden=5),
    "spline": lambda d: NeuralSplineFlow((d,), n_layers=3, hidden=5, n_bins=4),
}


def rows(n, d, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) + 3
    return torch.from_numpy(X)


def make_flow(d, kind="affine"):
    torch.manual_seed(0)
    model = FLOWS[kind](d).double()
    model.initialize(rows(100, d))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_flows_are_the_change_of_variables_formula(d, kind):
    model = make_flow(d, kind)
    X = rows(4, d, seed=1)
    z, _ = model.encode(X)
    for i in range(len(X)):
        jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x[None])[0][0], X[i])
        expected = (
            torch.linalg.slogdet(jacobian).logabsdet
            - 0.5 * (z[i] ** 2).sum()
            - d / 2 * math.log(2 * math.pi)
        )
        torch.testing.assert_close(model.log_prob(X)[i], expected)


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_decode_undoes_encode(d, kind):
    model = make_flow(d, kind)
    X = rows(20, d, seed=1)
    torch.testing.assert_close(model.decode(model.encode(X)[0]), X)


def test_diagonal_gaussian_is_the_normal_density():
    model = DiagonalGaussian((3,)).double()
    X = rows(50, 3)
    model.initialize(X)
    expected = multivariate_normal(X.mean(0), np.diag(X.var(0, correction=0))).logpdf(X)
    np.testing.assert_allclose(model.log_prob(X).detach(), expected)


def test_gradients_of_the_diagonal_gaussian_are_those_documented():
    model = DiagonalGaussian((3,)).double()
    model.initialize(rows(50, 3))
    x = rows(1, 3, seed=1)
    model.log_prob(x).sum().backward()
    scale = model.log_scale.detach().exp()
    z = (x[0] - model.mean.detach()) / scale
    torch.testing.assert_close(model.mean.grad, z / scale)
    torch.testing.assert_close(model.log_scale.grad, z**2 - 1)


@pytest.mark.parametrize("kind", FLOWS)
def test_densities_of_two_columns_integrate_to_one(kind):
    model = make_flow(2, kind)
    nodes = [torch.linspace(-40, 40, 601).double() * float(scale) for scale in model.scale]
    grid = torch.cartesian_prod(*nodes) + model.location
    cell = math.prod(float(node[1] - node[0]) for node in nodes)
    with torch.no_grad():
        total = model.log_prob(grid).exp().sum() * cell
    assert float(total) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("make", ["gaussian", *FLOWS])
def test_samples_have_the_density_that_log_prob_gives(make):
    """Mean log-likelihood of samples is the negative entropy, estimated by a fresh sample."""
    model = make_flow(2, make) if make in FLOWS else DiagonalGaussian((2,)).double()
    first, again, other = (
        model.sample(4000, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    if make == "gaussian":
        entropy = 1 + math.log(2 * math.pi)
        assert -model.log_prob(first).mean().item() == pytest.approx(entropy, abs=0.08)
    else:
        z, _ = model.encode(first)
        assert z.mean(0).abs().max() < 0.08
        torch.testing.assert_close(torch.cov(z.T), torch.eye(2).double(), rtol=0, atol=0.1)


@pytest.mark.parametrize("module", [DiagonalGaussian, NeuralSplineFlow, RealNVP])
def test_constant_columns_keep_the_density_finite(module):
    model = module((2,)).double()
    X = torch.ones(10, 2, dtype=torch.float64)
    model.initialize(X)
    assert model.log_prob(X).isfinite().all()


def test_a_column_that_was_constant_is_measured_in_its_own_unit():
    model = RealNVP((2,)).double()
    X = rows(50, 2)
    X[:, 1] = 4
    model.initialize(X)
    assert model.scale[1] == 1
    elsewhere = torch.tensor([[3.0, 5.0]]).double()
    assert model.log_prob(elsewhere).item() > -100


def test_noise_is_that_of_the_columns_and_of_training_alone():
    """A linear flow without couplings: the expected loss is known."""
    model = RealNVP((1,), noise=0.5).double()
    X = rows(5000, 1)
    model.initialize(X)
    assert model.training_loss(X).mean().item() == pytest.approx(
        -model.log_prob(X).mean().item() + 0.5 * 0.5**2, abs=0.02
    )
    first, again = (model.training_loss(X, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(model.log_prob(X), -RealNVP.training_loss(without_noise(model), X))
    with pytest.raises(ValueError, match="noise must not be negative"):
        RealNVP((1,), noise=-1)


def without_noise(model):
    twin = RealNVP(model.input_shape).double()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("module", [DiagonalGaussian, NeuralSplineFlow, RealNVP])
def test_images_are_refused(module):
    with pytest.raises(ValueError, match=r"\(n_features,\)"):
        module((1, 8, 8))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"n_bins": 1}, "n_bins must be between 2 and 500; got 1"),
        ({"tail_bound": 0.0}, r"tail_bound must be positive, .*; got 0\.0"),
        ({"noise": -1.0}, "noise must not be negative"),
    ],
)
def test_options_of_the_spline_flow_that_make_no_sense(option, message):
    with pytest.raises(ValueError, match=message):
        NeuralSplineFlow((3,), **option)


def test_a_spline_flow_starts_as_rotations_and_ends_in_them():
    """Splines begin as the identity; far outside, couplings stay so."""
    torch.manual_seed(0)
    model = NeuralSplineFlow((4,)).double()
    X = 3 * rows(50, 4)
    z, log_determinant = model.encode(X)
    torch.testing.assert_close(z.norm(dim=1), X.norm(dim=1), rtol=1e-5, atol=0)
    torch.testing.assert_close(log_determinant, torch.zeros(50).double(), rtol=0, atol=1e-5)
    coupling = model.layers[1]
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(torch.randn_like(parameter))
    far = torch.full((3, 4), 3.5).double()
    assert torch.equal(coupling(far)[0], far)
    assert not torch.equal(coupling(far - 3)[0], far - 3)


def test_a_spline_flow_learns_two_modes():
    """Where an elongated mixture has its gap, density is low: a Gaussian cannot know that."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 2)) * 0.3 + rng.choice([-2.0, 2.0], size=(1500, 1))
    options = {"module__n_layers": 2, "lr": 2e-2, "batch_size": 128, "max_epochs": 8}
    net = GenerativeNet(NeuralSplineFlow, random_state=0, **options).fit(X[:1000])
    truth = np.logaddexp(
        *(multivariate_normal([m, m], 0.09 * np.eye(2)).logpdf(X[1000:]) for m in (-2, 2))
    ) - np.log(2)
    gaussian = multivariate_normal(X[:1000].mean(0), np.cov(X[:1000].T))
    by_gaussian, by_flow = gaussian.logpdf(X[1000:]), net.score_samples(X[1000:])
    gained = (by_flow - by_gaussian).mean() / (truth - by_gaussian).mean()
    assert gained > 0.8
    assert net.score_samples([[0.0, 0.0]])[0] < np.quantile(by_flow, 0.02)
    assert gaussian.logpdf([0.0, 0.0]) > by_gaussian.max() - 0.1

"""What follows from the definitions, whatever the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.fisher import APPROXIMATIONS, FisherEstimate, FisherOptions, QuadraticForms
from skgradood.gradients import GradientEngine, layer_layout
from tests.fisher import closed, oracles
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.cases import CASES
from tests.gradients.modules import randomise

KINDS = tuple(APPROXIMATIONS)
PRECONDITIONED = KINDS[1:]
SMALL = ("mlp", "conv2d", "conv2d_grouped", "conv_transpose2d", "prelu", "bilinear")


def network(n=40):
    """A convolution, a grouped one and a linear map, and n images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 2, groups=3), nn.Tanh(),
            nn.Flatten(), nn.Linear(27, 2),
        )  # fmt: skip
    module = SquaredOutput(body).double()
    randomise(module)
    return module, seeded((n, 2, 6, 6), torch.float64)


@pytest.mark.parametrize("max_factor_size", [1024, 4])
@pytest.mark.parametrize("basis", ["gradients", "activations"])
def test_traces_are_the_mean_squared_gradient(basis, max_factor_size):
    """Exactly those of the diagonal, block and EKFAC; with factors of gradients, KFAC's too."""
    module, X = network()
    kinds = ["diagonal", "ekfac", "block", "kfac"]
    estimate = oracles.estimated(module, X, kinds, basis=basis, max_factor_size=max_factor_size)
    for name, g in oracles.dense_gradients(module, X).items():
        expected = (g**2).sum() / len(g)
        traces = [a.trace() for a in estimate.by_parameter[name]]
        exact = traces if basis == "gradients" else traces[:3]
        np.testing.assert_allclose(exact, expected, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", ["diagonal", "ekfac", "block", "sketch"])
@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("name", SMALL)
def test_the_mean_of_the_statistic_is_the_effective_dimension(name, damping, kind):
    """Σ λ/(λ + δ) on the rows of the estimate; without damping, the live coordinates."""
    module, X = CASES[name].make(torch.float64)
    estimate = oracles.estimated(module, X, [kind], damping=damping)
    means = oracles.statistics(module, X, estimate)[0].mean(0)
    for mean, (name, (a,)) in zip(means, estimate.by_parameter.items(), strict=True):
        assert a.effective_dim() == pytest.approx(mean, rel=1e-6), name
        if damping == 0:
            assert mean == pytest.approx(round(mean), abs=1e-5)
            assert round(mean) <= math.prod(a.shape)


def test_without_damping_the_mean_counts_dead_coordinates_out():
    """Rectified units that never fire have no gradient in any row."""
    body = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    module = SquaredOutput(body).double()
    randomise(module)
    with torch.no_grad():
        body[0].bias[:2] = -100
    X = seeded((60, 3), torch.float64)
    estimate = oracles.estimated(module, X, ["diagonal", "ekfac", "block"], damping=0)
    means = oracles.statistics(module, X, estimate).mean(1)
    # Of five units three live: 3 x 3 weights and 3 biases, 2 x 3 weights and 2 biases.
    np.testing.assert_allclose(means, [[9, 3, 6, 2]] * 3, rtol=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", ["mean", "absolute"])
def test_power_and_scale_of_the_damping(power, scale):
    module, X = network(12)
    options = {"damping": 0.02, "power": power, "damping_scale": scale}
    estimate = oracles.estimated(module, X, ["diagonal", "block"], **options)
    forms = oracles.statistics(module, X, estimate)
    for column, g in enumerate(oracles.dense_gradients(module, X).values()):
        g = oracles.flat(g)
        F = oracles.second_moments(g)
        mean = np.trace(F) / len(F)
        shift = 0.02 * (mean if scale == "mean" else 1)
        unit = mean ** (power - 1)
        diagonal = unit * (g**2 / (np.diag(F) + shift) ** power).sum(1)
        np.testing.assert_allclose(forms[0, :, column], diagonal, rtol=1e-9)
        values, vectors = np.linalg.eigh(F)
        block = unit * ((g @ vectors) ** 2 / (values.clip(0) + shift) ** power).sum(1)
        np.testing.assert_allclose(forms[1, :, column], block, rtol=1e-7)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_statistics_have_no_unit_whatever_the_power(power):
    """With theta in another unit gradients are multiplied by 1e3, and statistics stay the same."""
    module, X = network(12)

    def in_units(factor):
        def log_likelihood(module, X, generator):
            values = module.log_prob(X)
            return values.detach() + factor * (values - values.detach())

        engine = GradientEngine(module, log_likelihood=log_likelihood)
        layout = layer_layout(module)
        options = FisherOptions(power=power)
        estimate = FisherEstimate.of_module(module, layout, ["ekfac"], options)
        estimate.fit(lambda reducer: engine.run(X, reducer))
        forms = QuadraticForms(layout, estimate.by_parameter)
        engine.run(X, forms)
        return forms.result()

    np.testing.assert_allclose(in_units(1e3), in_units(1.0), rtol=1e-9)


class Bilinear(nn.Module):
    """log p = uᵀ W v with x = (u, v): the gradient is u ⊗ v, exactly a Kronecker product."""

    def __init__(self, p, q):
        super().__init__()
        self.W = closed.parameter(np.zeros((p, q)))

    def log_prob(self, X):
        p = len(self.W)
        return ((X[:, :p] @ self.W) * X[:, p:]).sum(1)


def test_kfac_ekfac_and_block_agree_where_the_covariance_is_a_kronecker_product():
    """Every u with every v: E[uuᵀ ⊗ vvᵀ] = E[uuᵀ] ⊗ E[vvᵀ], on the rows themselves."""
    rng = np.random.default_rng(0)
    us = rng.normal(size=(7, 3)) @ rng.normal(size=(3, 3))
    vs = rng.normal(size=(9, 4)) @ rng.normal(size=(4, 4))
    X = torch.as_tensor(np.array([[*u, *v] for u in us for v in vs]))
    module = Bilinear(3, 4)
    for basis in ("gradients", "activations"):
        estimate = oracles.estimated(
            module, X, ["kfac", "ekfac", "block"], basis=basis, damping=0.03
        )
        F = np.kron(us.T @ us / 7, vs.T @ vs / 9)
        for approximation in estimate.by_parameter["W"]:
            np.testing.assert_allclose(oracles.matrix_of(approximation), F, atol=1e-10)
        kfac, ekfac, block = oracles.statistics(module, X, estimate)
        np.testing.assert_allclose(kfac, block, rtol=1e-8)
        np.testing.assert_allclose(ekfac, block, rtol=1e-8)


def test_ekfac_is_the_nearest_of_all_matrices_that_its_basis_makes_diagonal():
    module, X = network()
    estimate = oracles.estimated(module, X, ["kfac", "ekfac", "block"])
    for kfac, ekfac, block in estimate.by_parameter.values():
        F = oracles.matrix_of(block)
        far, near = (np.linalg.norm(oracles.matrix_of(a) - F) for a in (kfac, ekfac))
        assert near <= far + 1e-12 * np.linalg.norm(F)


class Reparametrised(nn.Module):
    """A Gaussian whose mean is M η."""

    def __init__(self, M, eta, covariance):
        super().__init__()
        self.eta = closed.parameter(eta)
        self.register_buffer("M", torch.as_tensor(M))
        self.gaussian = closed.FullGaussian(np.zeros(len(M)), covariance)
        self.gaussian.requires_grad_(False)

    def log_prob(self, X):
        return self.gaussian.log_prob(X - self.M @ self.eta)


def test_the_block_is_free_of_the_parametrisation():
    rng = np.random.default_rng(0)
    M = rng.normal(size=(3, 3))
    mean, S = rng.normal(size=3), np.cov(rng.normal(size=(3, 20)))
    X = torch.as_tensor(rng.normal(size=(50, 3)))
    kinds = ["block", "diagonal"]
    forms = []
    for module in (
        closed.FullGaussian(mean, S),
        Reparametrised(M, np.linalg.solve(M, mean), S),
    ):
        estimate = oracles.estimated(module, X, kinds, damping=0)
        forms.append(oracles.statistics(module, X, estimate)[:, :, 0])
    np.testing.assert_allclose(forms[0][0], forms[1][0], rtol=1e-8)
    assert np.abs(forms[0][1] / forms[1][1] - 1).max() > 0.1  # the diagonal is not


class Mapped(nn.Module):
    """A density of Y = B X + c, by the change of variables."""

    def __init__(self, density, B, c):
        super().__init__()
        self.density = density
        self.register_buffer("B", torch.as_tensor(B))
        self.register_buffer("c", torch.as_tensor(c))

    def log_prob(self, Y):
        X = torch.linalg.solve(self.B, (Y - self.c).T).T
        return self.density.log_prob(X) - torch.slogdet(self.B)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_statistic_is_free_of_an_affine_map_of_the_data(kind):
    """The likelihood changes by a constant, and the score not at all: pixels in another unit."""
    rng = np.random.default_rng(0)
    density = closed.PPCA(rng.normal(size=(3, 2)), 0.1)
    B, c = rng.normal(size=(3, 3)) + 2 * np.eye(3), rng.normal(size=3)
    X = torch.as_tensor(rng.normal(size=(30, 3)))
    Y = X @ torch.as_tensor(B).T + torch.as_tensor(c)
    plain = oracles.statistics(density, X, oracles.estimated(density, X, [kind]))
    module = Mapped(density, B, c)
    # Sketches are seeded by the parameters' names, and so have others here.
    if kind == "sketch":
        options = {"sketch_size": 6}
        plain = oracles.statistics(density, X, oracles.estimated(density, X, ["block"], damping=0))
        estimate = oracles.estimated(module, Y, [kind], damping=0, **options)
    else:
        estimate = oracles.estimated(module, Y, [kind])
    np.testing.assert_allclose(oracles.statistics(module, Y, estimate), plain, rtol=1e-7)


@pytest.mark.parametrize("n", [5, 30])
def test_the_form_of_woodbury_needs_inner_products_only(n):
    """gᵀ (GᵀG/n + δI)⁻¹ g = (‖g‖² - kᵀ (K + nδI)⁻¹ k) / δ, also with fewer rows than entries."""
    module, X = network(n)
    estimate = oracles.estimated(module, X[:-2], ["block"], damping=0.3, damping_scale="absolute")
    forms = oracles.statistics(module, X, estimate)[0]
    for column, (name, G) in enumerate(oracles.dense_gradients(module, X).items()):
        products = oracles.flat(G) @ oracles.flat(G).T
        K, k = products[:-2, :-2], products[:-2]
        rows = len(K)
        solved = np.linalg.solve(K + rows * 0.3 * np.eye(rows), k)
        expected = (np.diag(products) - (k * solved).sum(0)) / 0.3
        np.testing.assert_allclose(forms[:, column], expected, rtol=1e-7, err_msg=name)


@pytest.mark.parametrize("kind", ["identity", "diagonal", "ekfac", "block"])
@pytest.mark.parametrize("name", ["mlp", "conv_transpose2d_grouped", "conv2d_depthwise"])
def test_channels_share_a_tensor_by_coordinates(name, kind):
    """Statistics sum to the tensor's, and effective dimensions are their means."""
    module, X = CASES[name].make(torch.float64)
    estimate = oracles.estimated(module, X, [kind], layers="channel", damping=0.1)
    channels = oracles.statistics(module, X, estimate, layers="channel")[0]
    whole = oracles.statistics(module, X, estimate)[0]
    np.testing.assert_allclose(channels.sum(1), whole.sum(1), rtol=1e-9)
    layout = layer_layout(module, "channel")
    (dims,) = estimate.effective_dims(layout)
    if kind == "identity":
        assert dims == layout.n_parameters
        return
    if kind != "ekfac":  # whose basis leaves correlations between channels
        np.testing.assert_allclose(dims, channels.mean(0), rtol=1e-6)
    expected = []
    for name, (approximation,) in estimate.by_parameter.items():
        M = oracles.matrix_of(approximation)
        share = np.diag(M @ np.linalg.inv(M + 0.1 * np.trace(M) / len(M) * np.eye(len(M))))
        split = layout.slots[name].split
        expected += split(torch.as_tensor(share.reshape(1, *approximation.shape)))[0].tolist()
    np.testing.assert_allclose(dims, expected, rtol=1e-6)


def test_a_dead_channel_has_no_dimension():
    body = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    module = SquaredOutput(body).double()
    randomise(module)
    with torch.no_grad():
        body[0].bias[:2] = -100
    X = seeded((60, 3), torch.float64)
    estimate = oracles.estimated(module, X, ["block", "diagonal"], layers="channel", damping=0)
    for dims in estimate.effective_dims(layer_layout(module, "channel")):
        np.testing.assert_allclose(dims, [0, 0, 3, 3, 3, 0, 0, 1, 1, 1, 3, 3, 1, 1], atol=1e-9)


def test_a_tensor_in_several_layers_counts_in_each():
    module, X = CASES["mlp"].make(torch.float64)
    names = list(dict(module.named_parameters()))
    layers = {"all": names, "biases": names[1::2], "first": names[:1]}
    estimate = oracles.estimated(module, X, KINDS[:5], layers=layers)
    grouped = oracles.statistics(module, X, estimate, layers=layers)
    apart = oracles.statistics(module, X, estimate)
    for column, members in enumerate(layers.values()):
        own = [names.index(name) for name in members]
        np.testing.assert_allclose(grouped[..., column], apart[..., own].sum(-1), rtol=1e-9)
    dims = np.array(estimate.effective_dims(layer_layout(module, layers)))
    alone = np.array(estimate.effective_dims(layer_layout(module)))
    np.testing.assert_allclose(dims[:, 0], alone.sum(1), rtol=1e-12)

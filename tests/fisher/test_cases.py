"""Every approximation on every architecture, through every engine, against dense gradients."""

from __future__ import annotations

import copy
import functools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.fisher import APPROXIMATIONS, reducers
from skgradood.gradients import EngineWarning, layer_layout
from tests.fisher import oracles
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.cases import CASES
from tests.gradients.modules import randomise

DAMPING = 1e-2
LARGEST_BLOCK = 600
NAMES = [name for name in CASES if not name.startswith("noise")]
FOLLOWED_BY_FUNC = [
    name
    for name in NAMES
    if not name.startswith("custom") and CASES[name].strategy != "loop" and CASES[name].func
]


def some_of(names):
    """Every third case; the others are slow tests, for engines that all form dense gradients."""
    return [
        name if i % 3 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for i, name in enumerate(names)
    ]


@functools.cache
def prepared(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, X = CASES[name].make(torch.float64)
    module.eval()
    return module, X, oracles.dense_gradients(module, X)


def expected_forms(members, fitted, measured, max_size=1024):
    """By the kind's key: the oracle's statistic of one tensor."""
    forms = {}
    for member in members:
        arguments = [fitted, measured, DAMPING]
        if member.key in ("kfac", "ekfac"):
            arguments += [member.sizes, max_size]
        if member.key == "sketch":
            arguments.append([vectors.numpy() for vectors in member.basis.vectors])
        forms[member.key] = getattr(oracles, member.key)(*arguments)
    return forms


def check(module, X, gradients, engine, **options):
    """Fit on all rows but the last, measure all of them, and compare every kind and layer."""
    largest = max(g[0].size for g in gradients.values())
    kinds = [kind for kind in APPROXIMATIONS if kind != "block" or largest <= LARGEST_BLOCK]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        estimate = oracles.estimated(
            module, X[:-1], kinds, engine=engine, damping=DAMPING, sketch_size=20, **options
        )
        actual = oracles.statistics(module, X, estimate, engine=engine)
    names = layer_layout(module).names
    assert actual.shape == (len(kinds), len(X), len(names))
    # What vanishes in theory is rounding noise of the largest gradients.
    noise = 1e-24 * max((g**2).sum() for g in gradients.values()) / DAMPING
    for column, name in enumerate(names):
        g = gradients[name]
        if (g**2).sum() <= 1e-6 * noise:
            continue
        forms = expected_forms(
            estimate.by_parameter[name], g[:-1], g, options.get("max_factor_size", 1024)
        )
        for k, kind in enumerate(kinds):
            np.testing.assert_allclose(
                actual[k, :, column], forms[kind], rtol=1e-6, atol=noise, err_msg=f"{name} {kind}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_auto_equals_brute_force(name):
    check(*prepared(name), "auto")


@pytest.mark.parametrize("max_factor_size", [1024, 6])
@pytest.mark.parametrize("name", some_of(NAMES))
def test_factors_equal_brute_force(name, max_factor_size, monkeypatch):
    """Where gradients are sums of products, none is formed, however small it is."""

    def factors_if_possible(forming, readers):
        return [math.isfinite(costs.by_factors) for costs in readers]

    monkeypatch.setattr(reducers, "read_factors", factors_if_possible)
    check(*prepared(name), "auto", max_factor_size=max_factor_size)


@pytest.mark.parametrize("name", some_of(NAMES))
def test_the_loop_equals_brute_force(name):
    check(*prepared(name), "loop")


@pytest.mark.parametrize("name", some_of(FOLLOWED_BY_FUNC))
def test_func_equals_brute_force(name):
    check(*prepared(name), "func")


@pytest.mark.parametrize("name", NAMES)
def test_three_modes_and_modes_that_are_not_rotated(name):
    check(*prepared(name), "auto", max_factor_size=6)


@pytest.mark.parametrize("max_factor_size", [1024, 6])
@pytest.mark.parametrize("name", NAMES)
def test_moments_along_the_basis_of_activations_are_those_of_the_gradients(name, max_factor_size):
    """Whatever the basis is: orthonormal, and its moments are exact."""
    module, X, gradients = prepared(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        estimate = oracles.estimated(
            module, X[:-1], ["ekfac"], basis="activations", damping=DAMPING,
            max_factor_size=max_factor_size,
        )  # fmt: skip
        actual = oracles.statistics(module, X, estimate)[0]
    noise = 1e-24 * max((g**2).sum() for g in gradients.values()) / DAMPING
    for column, layer in enumerate(layer_layout(module).names):
        (ekfac,) = estimate.by_parameter[layer]
        g = gradients[layer]
        if (g**2).sum() <= 1e-6 * noise:
            continue
        vectors = [
            np.eye(size) if v is None else v.numpy()
            for size, v in zip(ekfac.sizes, ekfac.basis.vectors, strict=True)
        ]
        for columns in vectors:
            np.testing.assert_allclose(columns.T @ columns, np.eye(len(columns)), atol=1e-10)
        coordinates = oracles.along(g.reshape(len(g), *ekfac.sizes), vectors)
        moments = (coordinates[:-1] ** 2).mean(0)
        np.testing.assert_allclose(
            ekfac.eigenvalues, moments, rtol=1e-6, atol=1e-11 * moments.max()
        )
        expected = oracles.form(coordinates, moments, DAMPING)
        np.testing.assert_allclose(actual[:, column], expected, rtol=1e-6, atol=noise)


class ComplexLinear(nn.Module):
    """A complex matrix and a complex bias, each a pair of real numbers a scalar."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.complex128))
        self.bias = nn.Parameter(torch.zeros(3, dtype=torch.complex128))

    def log_prob(self, X):
        z = X.to(self.weight.dtype) @ self.weight.T + self.bias
        return -(z.real**2 + (z.imag - 1) ** 2 + z.real * z.imag).sum(1)


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_complex_parameters(engine):
    module = ComplexLinear()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            real = torch.randn(*parameter.shape, 2, dtype=torch.float64, generator=generator)
            parameter.copy_(torch.view_as_complex(real))
    X = seeded((9, 4), torch.float64)
    gradients = oracles.dense_gradients(module, X)
    assert gradients["weight"].shape == (9, 3, 4, 2)
    check(module, X, gradients, engine)
    check(module, X, gradients, engine, max_factor_size=3)


@pytest.mark.parametrize("positions", [1, 2, 60])
def test_few_and_many_positions_choose_the_same_numbers(positions):
    """Factors are cheaper than the formed gradient at one end, and dearer at the other."""
    body = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5))
    module = SquaredOutput(body).double()
    randomise(module)
    X = seeded((8, positions, 7), torch.float64)
    check(module, X, oracles.dense_gradients(module, X), "capture")


def test_float32_is_within_rounding_of_float64():
    module, X = CASES["conv2d"].make(torch.float64)
    kinds = list(APPROXIMATIONS)
    estimate = oracles.estimated(module, X, kinds, damping=DAMPING)
    expected = oracles.statistics(module, X, estimate)
    single, X32 = copy.deepcopy(module).float(), X.float()
    estimate = oracles.estimated(single, X32, kinds, damping=DAMPING)
    np.testing.assert_allclose(oracles.statistics(single, X32, estimate), expected, rtol=1e-3)


def test_a_parameter_that_nothing_depends_on_has_zeros():
    module, X, gradients = prepared("unused_parameter")
    kinds = list(APPROXIMATIONS)
    estimate = oracles.estimated(module, X, kinds)
    names = layer_layout(module).names
    unused = [name for name in names if not gradients[name].any()]
    assert unused
    forms = oracles.statistics(module, X, estimate)
    for name in unused:
        assert (forms[:, :, names.index(name)] == 0).all()
        dims = [a.effective_dim() for a in estimate.by_parameter[name]]
        assert dims == [math.prod(gradients[name].shape[1:]), 0, 0, 0, 0, 0]

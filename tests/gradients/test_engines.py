"""Every architecture through every engine, against the plain loop."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from skgradood.gradients import (
    EngineWarning,
    GradientEngine,
    SquaredNorms,
    layer_gradient_norms,
    layer_layout,
)
from tests.gradients.cases import CASES

TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def autograd_norms(module, X):
    """Squared norms by the plainest code there is, and none of the package's."""
    rows = []
    for i in range(len(X)):
        value = module.log_prob(X[i : i + 1]).sum()
        parameters = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        rows.append([0.0 if g is None else float(g.double().square().sum()) for g in gradients])
    return np.array(rows)


def assert_norms_close(actual, expected, dtype):
    # A gradient that vanishes in theory is rounding noise: compare it on the row's scale.
    noise = (16 * torch.finfo(dtype).eps) ** 2 * expected.sum(1, keepdims=True)
    error = np.abs(actual - expected)
    allowed = TOLERANCES[dtype] * expected + noise
    assert (error <= allowed).all(), f"relative error {np.max(error / (expected + noise)):.3g}"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_auto_equals_the_loop_and_is_served_by_the_expected_strategy(name, dtype):
    case = CASES[name]
    module, X = case.make(dtype)
    layout = layer_layout(module)
    engine, reducer = GradientEngine(module), SquaredNorms(layout)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine.run(X, reducer)
    fallbacks = [str(w.message) for w in caught if issubclass(w.category, EngineWarning)]
    assert engine.strategy == case.strategy, fallbacks
    assert len(fallbacks) == (case.warns is not None)
    assert case.warns is None or case.warns in fallbacks[0]
    expected = layer_gradient_norms(module, X, engine="loop")
    assert_norms_close(reducer.result(), expected, dtype)
    assert expected.shape == (len(X), len(layout.names))
    if not name.startswith("noise"):
        assert_norms_close(expected, autograd_norms(module.eval(), X), dtype)


FOLLOWED_BY_FUNC = [
    name
    for name in CASES
    if not name.startswith(("noise", "custom_function"))
    and CASES[name].strategy != "loop"
    and CASES[name].func
]


@pytest.mark.parametrize("name", FOLLOWED_BY_FUNC)
def test_func_equals_the_loop(name):
    module, X = CASES[name].make(torch.float64)
    actual = layer_gradient_norms(module, X, engine="func", verify=False)
    assert_norms_close(actual, layer_gradient_norms(module, X, engine="loop"), torch.float64)


@pytest.mark.parametrize("layers", ["module", "channel"])
@pytest.mark.parametrize("name", CASES)
def test_groupings_are_sums_and_parts_of_the_parameters_norms(name, layers):
    module, X = CASES[name].make(torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        grouped = layer_gradient_norms(module, X, layers=layers)
        norms = layer_gradient_norms(module, X)
    assert grouped.shape == (len(X), len(layer_layout(module, layers).names))
    np.testing.assert_allclose(grouped.sum(1), norms.sum(1), rtol=1e-9)


@pytest.mark.parametrize("engine", ["auto", "capture", "loop"])
def test_tables_with_sparse_gradients_have_the_norms_of_others(engine):
    module, X = CASES["embedding_with_padding"].make(torch.float64)
    expected = autograd_norms(module, X)
    module.tokens.sparse = True
    assert_norms_close(layer_gradient_norms(module, X, engine=engine), expected, torch.float64)

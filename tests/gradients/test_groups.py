"""Groups of samples: the norm of the summed gradient."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from skgradood.gradients import EngineWarning, GradientEngine, SquaredNorms, layer_layout
from tests.gradients.cases import CASES
from tests.gradients.test_engines import assert_norms_close

# Rows that are coupled, or draw noise, are other samples in a group than alone.
ADDITIVE = [
    name
    for name in CASES
    if "batch" not in name or name.startswith("batch_norm") or name == "windows_in_the_batch"
]

DRAWING = [n for n, case in CASES.items() if n.startswith("noise") and case.strategy == "capture"]


def group_norms(module, X, **options):
    engine = GradientEngine(module, grouped=True, **options)
    norms = SquaredNorms(layer_layout(module))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        values = engine.run(X, norms)
    return norms.result(), values, engine.strategy


@pytest.mark.parametrize("name", [name for name in ADDITIVE if not name.startswith("noise")])
def test_norms_of_groups_are_norms_of_sums(name):
    case = CASES[name]
    module, X = case.make(torch.float64)
    module.eval()
    X = torch.cat([X, X.flip(0)])
    groups = X[: len(X) // 2 * 2].unflatten(0, (-1, 2))
    norms, values, strategy = group_norms(module, groups)
    assert strategy == case.strategy
    expected = []
    for group in groups:
        parameters = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(module.log_prob(group).sum(), parameters, allow_unused=True)
        expected.append([0.0 if g is None else float(g.square().sum()) for g in gradients])
    assert_norms_close(norms, np.array(expected), torch.float64)
    with torch.no_grad():
        sums = torch.stack([module.log_prob(group).sum() for group in groups])
    np.testing.assert_allclose(values, sums, rtol=1e-10)


@pytest.mark.parametrize("name", DRAWING)
def test_noise_of_a_group_does_not_depend_on_other_groups(name):
    module, X = CASES[name].make(torch.float64)
    groups = torch.stack([X[:2], X[2:]])
    norms, _, strategy = group_norms(module, groups)
    assert strategy == "capture"
    for k in range(2):
        alone, _, _ = group_norms(module, groups[k : k + 1], engine="loop")
        np.testing.assert_allclose(norms[k : k + 1], alone, rtol=1e-9)


def test_groups_of_one_are_samples():
    module, X = CASES["vae"].make(torch.float32)
    norms = SquaredNorms(layer_layout(module))
    GradientEngine(module).run(X, norms)
    np.testing.assert_allclose(group_norms(module, X[:, None])[0], norms.result(), rtol=1e-4)

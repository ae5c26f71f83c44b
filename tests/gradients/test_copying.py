"""Copies of modules that hold tensors with a history after a pass."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import layer_gradient_norms
from skgradood.gradients.copying import copy_of
from skgradood.gradients.state import isolated_rng
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.modules import Keeping
from tests.gradients.simulated_device import norms_there

X = seeded((6, 3), torch.float32)


def with_hook(normalise):
    """A module whose weight the older functions of torch compute before every pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # they are deprecated, and in use
        return SquaredOutput(nn.Sequential(normalise(nn.Linear(3, 2)), nn.Tanh())).eval()


MODULES = {
    "own": Keeping,
    "weight_norm": lambda: with_hook(nn.utils.weight_norm),
    "spectral_norm": lambda: with_hook(nn.utils.spectral_norm),
}


@pytest.fixture(params=MODULES)
def used(request):
    """A module after a pass."""
    with isolated_rng(0):
        module = MODULES[request.param]()
    module.log_prob(X)
    holders = [child for child in module.modules() if "weight" in vars(child)]
    assert [child.weight.is_leaf for child in holders] == [False]
    return module


def test_a_copy_computes_the_same_with_parameters_of_its_own(used):
    copied = copy_of(used)
    assert torch.equal(copied.log_prob(X), used.log_prob(X))
    own, others = list(used.parameters()), list(copied.parameters())
    expected = torch.autograd.grad(used.log_prob(X).sum(), own)
    actual = torch.autograd.grad(copied.log_prob(X).sum(), others)
    assert all(map(torch.equal, actual, expected))
    assert not {p.data_ptr() for p in own} & {p.data_ptr() for p in others}


def test_only_histories_are_lost():
    module = Keeping()
    module.mine = torch.ones(2, requires_grad=True)
    module.log_prob(X)
    weight = module.weight
    copied = copy_of(module)
    assert copied.seen["weight"] is copied.weight
    assert copied.weight.is_leaf
    assert not copied.weight.requires_grad
    assert torch.equal(copied.seen["outputs"][0], module.seen["outputs"][0])
    assert copied.mine.requires_grad
    assert copied.mine is not module.mine
    assert module.weight is weight is module.seen["weight"]
    assert not weight.is_leaf


def test_a_view_of_a_parameter_is_refused_as_by_torch():
    module = nn.Linear(3, 2)
    module.rows = module.weight[:1]
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy_of(module)


def test_the_engine_goes_to_another_device(used, monkeypatch):
    expected = layer_gradient_norms(used, X, engine="loop")
    strategy, norms = norms_there(used, X, monkeypatch)
    assert strategy == "capture"
    np.testing.assert_allclose(norms, expected, rtol=1e-4)

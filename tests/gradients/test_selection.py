"""Only what is asked for is computed: parameters in no layer are constants."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import (
    EngineWarning,
    GradientEngine,
    SquaredNorms,
    StrategyRefused,
    layer_gradient_norms,
    layer_layout,
    layer_names,
    per_sample_gradients,
)
from tests.gradients import hard_modules
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.cases import CASES
from tests.gradients.test_side_effects import assert_same, snapshot

DIVISIBLE = [name for name in CASES if len(layer_names(CASES[name].make(torch.float64)[0])) > 1]


class Names:
    """A reducer that remembers of which parameters it has heard."""

    def __init__(self):
        self.heard = set()

    def begin(self, n, device):
        pass

    def update(self, gradient):
        self.heard.add(gradient.name)

    def commit(self):
        pass


@pytest.mark.parametrize("engine", ["auto", "func", "loop"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", DIVISIBLE)
def test_some_layers_are_the_columns_of_the_full_run(name, first, engine):
    module, X = CASES[name].make(torch.float64)
    before, names = snapshot(module), layer_names(module)
    wanted = names[first::2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        try:
            norms = layer_gradient_norms(
                module, X, layers={name: [name] for name in wanted}, engine=engine
            )
        except StrategyRefused:
            assert engine == "func"  # which refuses some cases
            return
        expected = layer_gradient_norms(module, X, engine="loop")[:, first::2]
    noise = 1e-24 * layer_gradient_norms(module, X, engine="loop").sum(1, keepdims=True)
    assert (np.abs(norms - expected) <= 1e-9 * expected + noise).all()
    assert_same(before, snapshot(module))


@pytest.mark.parametrize("engine", ["auto", "func", "loop"])
def test_nobody_hears_of_other_parameters_and_log_likelihoods_stay(engine):
    module, X = CASES["glow_lu"].make(torch.float64)
    wanted = layer_names(module)[3:7]
    reducer = Names()
    values = per_sample_gradients(module, X, reducer, parameters=wanted, engine=engine)
    assert reducer.heard == set(wanted)
    expected = per_sample_gradients(module, X, Names(), engine="loop")
    np.testing.assert_allclose(values, expected)


class Watchful(nn.Module):
    """Counts backward passes through its first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.passes = 0

    def _count(self, gradient):
        self.passes += 1

    def log_prob(self, X):
        h = self.first(X).tanh()
        if h.requires_grad:
            h.register_hook(self._count)
        return -self.last(h).square().sum(1)


@pytest.mark.parametrize("engine", ["capture", "loop"])
def test_the_backward_pass_ends_where_the_wanted_parameters_end(engine):
    module, X = Watchful(), torch.linspace(-1, 1, 12).reshape(3, 4)
    layer_gradient_norms(module, X, engine=engine)
    assert module.passes > 0
    module.passes = 0
    layer_gradient_norms(module, X, engine=engine, layers=r"regex:last")
    assert module.passes == 0


def test_what_capture_cannot_serve_does_not_matter_where_it_is_not_wanted():
    body = nn.Sequential(hard_modules.CustomLayer(4), nn.Linear(4, 2))
    module, X = SquaredOutput(body), seeded((3, 4), torch.float32)
    whole, part = GradientEngine(module), GradientEngine(module, parameters=["body.1.weight"])
    with pytest.warns(EngineWarning, match="cannot be watched"):
        whole.run(X, Names())
    part.run(X, Names())
    assert (whole.strategy, part.strategy) == ("loop", "capture")


@pytest.mark.parametrize("engine", ["auto", "capture", "func", "loop"])
def test_a_layer_without_influence_has_a_gradient_of_zero(engine):
    module = SquaredOutput(nn.Linear(3, 2)).double()
    module.unused = nn.Parameter(torch.ones(4, dtype=torch.float64))
    X = seeded((5, 3), torch.float64)
    layout = layer_layout(module, {"unused": ["unused"]})
    norms = SquaredNorms(layout)
    values = per_sample_gradients(module, X, norms, parameters=layout.slots, engine=engine)
    assert (norms.result() == 0).all()
    np.testing.assert_allclose(values, module.log_prob(X).detach())


def test_what_is_wanted_must_exist():
    module, X = CASES["frozen_parameters"].make(torch.float64)
    frozen = next(name for name, p in module.named_parameters() if not p.requires_grad)
    for names in ([], ["nowhere"], [frozen]):
        with pytest.raises(ValueError, match="parameters must name some of the parameters"):
            per_sample_gradients(module, X, Names(), parameters=names)

"""How one strategy follows another that does not serve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skgradood import layer_gradient_norms
from skgradood.gradients import EngineWarning
from tests.gradients.building import seeded


class AsManyAsVmapSays(nn.Module):
    """Under vmap the last function returns another shape, and capture has no rule for the first."""

    def __init__(self):
        super().__init__()
        self.root, self.added = nn.Parameter(torch.eye(4) + 0.1), nn.Parameter(torch.zeros(4))

    def log_prob(self, X):
        y = X + torch.kron(X, self.added[None]).sum(1, keepdim=True)
        return -(torch.linalg.solve(self.root @ self.root.mT, y[..., None])[..., 0] * y).sum(1)


def test_what_vmap_returns_does_not_end_the_search_for_a_strategy():
    module, X = AsManyAsVmapSays().double(), seeded((5, 4), torch.float64)
    with pytest.warns(EngineWarning, match=r"func: .* expected one log-likelihood a sample"):
        norms = layer_gradient_norms(module, X)
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"))


class ShapedByADraw(nn.Module):
    """Has as many classes as there are rows, and one draw for all of them."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.randn(8, 4))
        self.register_buffer("weights", torch.tensor([0.72] + [0.04] * 7))

    def log_prob(self, X):
        mean = self.means[torch.multinomial(self.weights, 1)]
        return -(X[None] - mean[:, None]).square().sum(-1).squeeze(0)


def test_a_shape_that_is_no_models_own_does_not_end_the_search_for_a_strategy():
    module, X = ShapedByADraw().double(), seeded((8, 4), torch.float64)
    with pytest.warns(EngineWarning, match="random numbers"):
        norms = layer_gradient_norms(module, X)
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"))

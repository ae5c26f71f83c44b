"""Gradients of complex parameters, not only their norms, which a conjugate shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import per_sample_gradients
from tests.gradients.building import seeded


class ComplexLinear(nn.Module):
    """A complex linear map with a shift, by any of torch's functions."""

    def __init__(self, by: str) -> None:
        super().__init__()
        values = torch.view_as_complex(seeded((15, 2), torch.float64))
        self.weight = nn.Parameter(values[:12].reshape(3, 4).clone())
        self.bias = nn.Parameter(values[12:].clone())
        self.by = by

    def log_prob(self, X):
        x = torch.complex(X, X.cos())
        if self.by == "linear":
            y = nn.functional.linear(x, self.weight, self.bias)
        else:
            product = x @ self.weight.mT if self.by == "right" else (self.weight @ x.mT).mT
            y = product + self.bias
        return torch.view_as_real(y).sin().flatten(1).sum(1)


class Dense:
    """Keeps whole gradients, (n, ...) by the parameter's name."""

    def begin(self, n, device):
        self.gradients = {}

    def update(self, gradient):
        self.gradients[gradient.name] = gradient.dense().clone()

    def commit(self):
        pass


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4)], ids=["rows", "positions"])
@pytest.mark.parametrize("by", ["linear", "right", "left"])
@pytest.mark.parametrize("engine", ["capture", "func"])
def test_gradients_are_autograds_own(engine, by, shape):
    module, X = ComplexLinear(by), seeded(shape, torch.float64)
    dense = Dense()
    per_sample_gradients(module, X, dense, engine=engine, verify=False, batch_size=len(X))
    for i in range(len(X)):
        alone = torch.autograd.grad(module.log_prob(X[i : i + 1]).sum(), list(module.parameters()))
        for (name, _), expected in zip(module.named_parameters(), alone, strict=True):
            np.testing.assert_allclose(dense.gradients[name][i], expected, rtol=1e-10, atol=1e-12)

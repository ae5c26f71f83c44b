"""What mixes the samples of a batch is refused by capture itself, before anything is compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import layer_gradient_norms
from skgradood.gradients.capture import propagation
from skgradood.gradients.errors import StrategyRefused
from tests.gradients import modules
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.operations import COUPLINGS


class WritesWithoutGradients(nn.Module):
    """Mixes samples where no gradient is kept, by a function that works element by element."""

    def __init__(self):
        super().__init__()
        self.linear, self.factor = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        h = self.linear(x)
        with torch.no_grad():
            h.addcmul_(h.mean(0), self.factor)
        return self.linear(h)


@pytest.mark.parametrize("name", COUPLINGS)
def test_capture_refuses_without_verification(name):
    use = COUPLINGS[name]
    module = SquaredOutput(use.build()).double()
    modules.randomise(module)
    X = seeded(use.x, torch.float64)
    with pytest.raises(StrategyRefused):
        layer_gradient_norms(module, X, engine="capture", verify=False)


def test_what_is_written_into_data_without_gradients_is_not_trusted():
    with pytest.raises(StrategyRefused, match="mixes samples in place"):
        layer_gradient_norms(
            SquaredOutput(WritesWithoutGradients()),
            torch.ones(4, 3),
            engine="capture",
            verify=False,
        )


class ReordersByNumPy(nn.Module):
    """Indices that print alike, of which the second ones exchange two samples."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x):
        same = np.arange(len(x))
        exchanged = same.copy()
        exchanged[500:502] = exchanged[501:499:-1]
        return (x[same] * self.factor)[exchanged]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_are_told_apart_in_long_batches_and_any_default_dtype(dtype):
    X = torch.ones(1200, 1)
    try:
        torch.set_default_dtype(dtype)
        with pytest.raises(StrategyRefused, match=r"order of the samples|cannot be told apart"):
            layer_gradient_norms(
                SquaredOutput(ReordersByNumPy().float()),
                X,
                engine="capture",
                batch_size=1200,
                verify=False,
            )
    finally:
        torch.set_default_dtype(torch.float32)


class WritesAfterUse(nn.Module):
    """What comes from a parameter is one thing where data first meet it, and another later."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x):
        doubled = self.weight * 2
        h = x @ doubled
        doubled.mul_(3)
        return h + (x @ doubled).tanh()


def test_what_is_written_into_after_its_use_is_refused():
    module = SquaredOutput(WritesAfterUse())
    with pytest.raises(StrategyRefused, match="written into after"):
        layer_gradient_norms(module, torch.ones(4, 3), engine="capture", verify=False)


@pytest.mark.parametrize("dim", [1, -1, 2])
def test_softmax_along_other_dimensions_is_not_tried_on_copies(dim, monkeypatch):
    monkeypatch.setattr(propagation, "axes_by_probing", lambda *_: pytest.fail("tried"))

    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(seeded((3, 4), torch.float64))

        def log_prob(self, X):
            return (self.scale * X).log_softmax(dim).exp().square().sum((1, 2))

    module, X = Softmax(), seeded((5, 3, 4), torch.float64)
    norms = layer_gradient_norms(module, X, engine="capture")
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"), rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("function", [lambda h: h.cummin(0).values, lambda h: h.cummax(0).values])
def test_numbers_that_happen_to_be_in_order_do_not_hide_what_mixes_them(function, n):
    class Cumulative(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return function(x.sum(1))[:, None] * self.factor

    module, X = SquaredOutput(Cumulative()), seeded((n, 3), torch.float64)
    with pytest.raises(StrategyRefused, match="cannot be told apart"):
        layer_gradient_norms(module, X, engine="capture", verify=False)

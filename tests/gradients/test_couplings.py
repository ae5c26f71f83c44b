"""What mixes the samples of a batch is refused by capture itself, before anything is compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skgradood.gradients import layer_gradient_norms
from skgradood.gradients.errors import StrategyRefused
from tests.gradients import modules
from tests.gradients.cases import SquaredOutput, seeded
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
    with pytest.raises(StrategyRefused, match="cannot be told apart"):
        layer_gradient_norms(
            SquaredOutput(WritesWithoutGradients()),
            torch.ones(4, 3),
            engine="capture",
            verify=False,
        )

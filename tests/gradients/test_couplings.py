"""What mixes the samples of a batch is refused by capture itself, before anything is compared."""

from __future__ import annotations

import pytest
import torch

from skgradood.gradients import layer_gradient_norms
from skgradood.gradients.errors import StrategyRefused
from tests.gradients import modules
from tests.gradients.cases import SquaredOutput, seeded
from tests.gradients.operations import COUPLINGS


@pytest.mark.parametrize("name", COUPLINGS)
def test_capture_refuses_without_verification(name):
    use = COUPLINGS[name]
    module = SquaredOutput(use.build()).double()
    modules.randomise(module)
    X = seeded(use.x, torch.float64)
    with pytest.raises(StrategyRefused):
        layer_gradient_norms(module, X, engine="capture", verify=False)

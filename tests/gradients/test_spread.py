"""Parameters with a slice for every row before they meet data count once where the slices agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skgradood import layer_gradient_norms
from skgradood.gradients import GradientEngine, layer_layout
from skgradood.gradients.derived import JacobianContribution
from tests.gradients.building import seeded
from tests.gradients.test_derived import Kinds

N = 5


def written_into(level, ones):
    spread = ones + level
    spread.mul_(3.0)
    return spread


def of_what_is_written_into(level, ones):
    copy = 1.0 * level
    spread = ones + copy
    copy.mul_(3.0)
    return spread + ones


SPREAD = {
    "added to ones": lambda level, ones: ones + level,
    "with ones added": lambda level, ones: torch.add(level, ones),
    "less ones": lambda level, ones: level - ones,
    "expanded": lambda level, ones: level.expand(len(ones)),
    "expanded as": lambda level, ones: level.expand_as(ones),
    "in two steps": lambda level, ones: ones + level.expand(len(ones)) - 2 * ones,
}
# The slices have other gradients than the number that they are made of.
OTHERS = {
    "taken from ones": lambda level, ones: ones - level,
    "taken from ones, the other way": lambda level, ones: level.__rsub__(ones),
    "rsub": lambda level, ones: torch.rsub(level, ones),
    "a multiple added": lambda level, ones: torch.add(ones, level, alpha=3.0),
    "a multiple": lambda level, ones: ones * level,
    "written into": written_into,
    "of what is written into": of_what_is_written_into,
}


class Spreads(nn.Module):
    """A number meets data as it is, and spread over the rows: both gradients add up."""

    def __init__(self, function) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.function = function

    def log_prob(self, X: Tensor) -> Tensor:
        spread = self.function(self.level, torch.ones(len(X), dtype=X.dtype))
        return (spread * X.sum(1)).sin() + self.level * X.square().sum(1)


@pytest.mark.parametrize("name", [*SPREAD, *OTHERS])
def test_norms_are_those_of_the_number(name):
    module, X = Spreads((SPREAD | OTHERS)[name]), seeded((N, 3), torch.float64)
    norms = Kinds(layer_layout(module))
    GradientEngine(module, engine="capture", verify=False).run(X, norms)
    loop = layer_gradient_norms(module, X, engine="loop")
    np.testing.assert_allclose(norms.result(), loop, rtol=1e-12)
    assert (JacobianContribution in norms.kinds) == (name in OTHERS)

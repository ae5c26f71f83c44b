"""Properties that hold for any model, on random geometries and shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skgradood.gradients import layer_gradient_norms
from tests.gradients.building import SquaredOutput, seeded
from tests.gradients.cases import CASES
from tests.gradients.modules import randomise
from tests.gradients.test_engines import assert_norms_close, autograd_norms

CONVOLUTIONS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


@st.composite
def convolutions(draw):
    """A convolution of any kind, and the shape of a batch that it accepts."""
    d = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    groups = draw(st.integers(1, 2))
    sizes = st.lists(st.integers(1, 3), min_size=d, max_size=d).map(tuple)
    options = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": draw(sizes),
        "stride": draw(sizes),
        "dilation": draw(sizes),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    reach = [
        (k - 1) * a + 1 for k, a in zip(options["kernel_size"], options["dilation"], strict=True)
    ]
    padding = tuple(draw(st.integers(0, (r - 1) // 2)) for r in reach)
    if not transposed:
        modes = ["zeros", "replicate", "circular"]
        options["padding_mode"] = draw(st.sampled_from(modes))
    elif draw(st.booleans()):
        pairs = zip(options["stride"], options["dilation"], strict=True)
        options["output_padding"] = tuple(min(1, max(pair) - 1) for pair in pairs)
    layer = CONVOLUTIONS[d][transposed](**options, padding=padding)
    extra = draw(st.integers(0, 3))
    return layer, (3, options["in_channels"], *(r + extra for r in reach))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_capture_is_exact_for_any_convolution(drawn):
    layer, shape = drawn
    module = SquaredOutput(layer).double()
    randomise(module)
    X = seeded(shape, torch.float64)
    norms = layer_gradient_norms(module, X, engine="capture", verify=False)
    assert_norms_close(norms, autograd_norms(module, X), torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    widths=st.lists(st.integers(1, 30), min_size=2, max_size=3),
    n=st.integers(2, 5),
)
def test_capture_is_exact_for_linear_layers_over_any_positions(shape, widths, n):
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    module = SquaredOutput(nn.Sequential(*layers, nn.Tanh())).double()
    randomise(module)
    X = seeded((n, *shape, widths[0]), torch.float64)
    norms = layer_gradient_norms(module, X, engine="capture", verify=False)
    assert_norms_close(norms, autograd_norms(module, X), torch.float64)


class OneCopyARow(nn.Module):
    """A parameter that is expanded to the rows before it meets them."""

    def __init__(self, d):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(d))

    def forward(self, x):
        return x * self.scale.exp().expand(len(x), -1)


NEIGHBOURS = {
    "one_copy_a_row": lambda: OneCopyARow(4),
    "linear": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()),
    "prelu": lambda: nn.Sequential(nn.PReLU(), nn.Hardtanh()),
    "embedding": lambda: Padded(3),
}


class Padded(nn.Module):
    """Looks up signs; what is not finite is at places that pick the padding row alone."""

    def __init__(self, d):
        super().__init__()
        self.table = nn.Embedding(3, d, padding_idx=1)

    def forward(self, x):
        return self.table(x.nan_to_num().sign().long() + 1) * x[..., None]


@pytest.mark.parametrize("engine", ["auto", "capture", "func", "loop"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_row_that_is_not_finite_is_alone_with_that(name, value, engine):
    module = SquaredOutput(NEIGHBOURS[name]()).double()
    randomise(module)
    X = seeded((5, 4), torch.float64)
    X[2, 1] = value
    norms = layer_gradient_norms(module, X, engine=engine)
    assert_norms_close(norms[[0, 1, 3, 4]], autograd_norms(module, X[[0, 1, 3, 4]]), torch.float64)
    np.testing.assert_array_equal(
        np.isfinite(norms[2]), np.isfinite(autograd_norms(module, X[2:3])[0])
    )


SCALABLE = [
    name
    for name, case in CASES.items()
    if case.strategy == "capture" and not name.startswith("gradient_clipped")
]


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(SCALABLE),
    factor=st.floats(-3, 3).filter(lambda c: abs(c) > 0.1),
    order=st.permutations(range(3)),
)
def test_norms_scale_with_the_square_and_follow_the_order_of_rows(name, factor, order):
    module, X = CASES[name].make(torch.float64)
    X = X[:3]

    def scaled(module, X, generator):
        if name.startswith("noise"):
            return factor * module.log_prob(X, generator=generator)
        return factor * module.log_prob(X)

    norms = layer_gradient_norms(module, X)
    again = layer_gradient_norms(module, X[list(order)], log_likelihood=scaled)
    noise = 1e-20 * norms.max()
    np.testing.assert_allclose(again, factor**2 * norms[list(order)], rtol=1e-8, atol=noise)

"""Every way to a convolution's weight gradient, against the kernel of torch itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from skgradood.gradients.convolution import ConvolutionContribution, ConvolutionGeometry
from tests.gradients.test_invariants import convolutions

WAYS = ["_by_patches", "_by_flipped_patches", "_by_kernel"]


def contribution_of(layer, X):
    """The contribution of a layer without bias or padding mode, and autograd's answer."""
    output = layer(X)
    gradient = torch.randn(output.shape, dtype=X.dtype, generator=torch.Generator().manual_seed(1))
    geometry = ConvolutionGeometry(
        layer.stride, layer.padding, layer.dilation, layer.groups, layer.transposed,
        layer.output_padding,
    )  # fmt: skip
    sides = (gradient, X) if layer.transposed else (X, gradient)
    patched, pointwise = (side.unflatten(0, (-1, 2)) for side in sides)
    expected = [
        torch.autograd.grad(layer(x), layer.weight, g)[0]
        for x, g in zip(X.split(2), gradient.split(2), strict=True)
    ]
    contribution = ConvolutionContribution(patched, pointwise, layer.weight.shape, geometry)
    return contribution, torch.stack(expected)


@settings(max_examples=50, deadline=None)
@given(convolutions())
def test_all_ways_agree_with_torch_for_two_rows_a_sample(drawn):
    layer, (_, *shape) = drawn
    layer.padding_mode = "zeros"
    X = torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    contribution, expected = contribution_of(layer.double(), X)
    ways = WAYS if max(layer.stride) == 1 else ["_by_patches", "_by_kernel"]
    for way in ways:
        torch.testing.assert_close(getattr(contribution, way)(slice(1, 3)), expected[1:3])
    norms = expected.flatten(1).square().sum(1)
    torch.testing.assert_close(contribution._gram_norm(), norms)
    torch.testing.assert_close(contribution.squared_norm(), norms)


@pytest.mark.parametrize(
    ("n_in", "n_out", "kernel", "size", "way"),
    [
        (1, 32, 4, 16, "patches"),
        (96, 4, 3, 14, "flipped patches"),
        (32, 128, 5, 32, "kernel"),
        (128, 100, 4, 4, "gram"),
    ],
)
def test_the_cost_model_prefers_what_was_measured_to_be_quickest(n_in, n_out, kernel, size, way):
    layer = torch.nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2 if size > 4 else 0)
    contribution, _ = contribution_of(layer, torch.randn(2, n_in, size, size))
    assert contribution._cheapest(contribution._ways) == way


@pytest.mark.parametrize("scale", [1e25, 1e-25, 0.0])
def test_squares_beyond_float32_are_kept_where_a_kernel_forms_gradients(scale):
    contribution, expected = contribution_of(
        torch.nn.Conv2d(32, 128, 5, padding=2), torch.randn(4, 32, 32, 32)
    )
    assert contribution._cheapest(contribution._ways) == "kernel"
    contribution.pointwise[0] *= scale
    expected[0] *= scale
    norms = expected.double().flatten(1).square().sum(1)
    torch.testing.assert_close(contribution.squared_norm(), norms, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("way", "layer", "size"),
    [("kernel", (32, 128, 5), 32), ("gram", (64, 128, 3), 2)],
)
def test_no_gradient_is_formed_once_more_for_a_factor_of_zeros(way, layer, size, monkeypatch):
    *channels, kernel = layer
    contribution, expected = contribution_of(
        torch.nn.Conv2d(*channels, kernel, padding=kernel // 2),
        torch.randn(4, channels[0], size, size, generator=torch.Generator().manual_seed(0)),
    )
    assert contribution._cheapest(contribution._ways) == way
    contribution.pointwise[0] = 0
    expected[0] = 0
    monkeypatch.setattr(ConvolutionContribution, "dense", lambda *_: pytest.fail("formed"))
    norms = expected.double().flatten(1).square().sum(1)
    torch.testing.assert_close(contribution.squared_norm(), norms, rtol=1e-4, atol=0)

"""Gradients kept in half precision: norms are multiplied in it, all else in the parameter's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skgradood.fisher.approximation import FisherOptions
from skgradood.fisher.kronecker import EKFAC
from skgradood.gradients import layer_gradient_norms
from skgradood.gradients.contributions import OuterContribution
from skgradood.gradients.convolution import ConvolutionContribution, ConvolutionGeometry
from skgradood.gradients.layer_gradient import LayerGradient

N = 3


def half(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def linear(positions: int) -> OuterContribution:
    factors = half(N, positions, 20), half(N, positions, 30, seed=1)
    return OuterContribution(*factors, torch.Size((30, 20)))


def convolution(n_in: int, n_out: int, kernel: int, size: int) -> ConvolutionContribution:
    padding = kernel // 2
    geometry = ConvolutionGeometry((1, 1), (padding,) * 2, (1, 1), 1, False, (0, 0))
    patched = half(N, 1, n_in, size, size)
    pointwise = half(N, 1, n_out, *(size + 2 * padding - kernel + 1,) * 2, seed=1)
    return ConvolutionContribution(
        patched, pointwise, torch.Size((n_out, n_in, kernel, kernel)), geometry
    )


CONTRIBUTIONS = {
    "a row": lambda: linear(1),
    "Gram": lambda: linear(4),
    "dense": lambda: linear(50),
    "patches": lambda: convolution(1, 32, 4, 16),
    "flipped patches": lambda: convolution(96, 4, 3, 14),
    "kernel": lambda: convolution(32, 128, 5, 32),
    "Gram of patches": lambda: convolution(64, 128, 3, 2),
}


def gradient_of(contribution, dtype=torch.float32):
    return LayerGradient(
        "weight", contribution.shape, N, dtype, torch.device("cpu"), [contribution]
    )


def in_double(contribution) -> Tensor:
    """What the same numbers give in float64."""
    return gradient_of(contribution, torch.float64).dense()


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_norms_are_those_of_the_same_numbers(name):
    contribution = CONTRIBUTIONS[name]()
    expected = in_double(contribution).flatten(1).square().sum(1)
    norms = contribution.squared_norm()
    assert norms.dtype == torch.float64
    # Errors of 2^-9 in every number of a gradient are independent of one another.
    torch.testing.assert_close(norms, expected, rtol=2e-3, atol=0)


def test_gram_norms_that_cancel_are_not_trusted():
    contribution = linear(4)
    # Over positions that are nearly the same, output gradients nearly add up to zero.
    contribution.activations = (1 + 0.1 * contribution.activations.float()).bfloat16()
    gradients = contribution.output_gradients.float()
    contribution.output_gradients = (gradients - gradients.mean(1, keepdim=True)).bfloat16()
    a, g = contribution.activations, contribution.output_gradients
    expected = in_double(contribution).flatten(1).square().sum(1)
    by_gram = ((a @ a.mT).double() * (g @ g.mT).double()).sum((1, 2))
    assert ((by_gram / expected - 1).abs() > 0.02).any()
    torch.testing.assert_close(contribution.squared_norm(), expected, rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_gradients_and_factors_have_the_parameters_precision(name):
    contribution = CONTRIBUTIONS[name]()
    gradient, expected = gradient_of(contribution), in_double(contribution)
    dense = gradient.dense()
    assert dense.dtype == torch.float32
    torch.testing.assert_close(dense.double(), expected, rtol=1e-5, atol=1e-4)
    left, right = gradient.factors()
    products = (left @ right.mT).reshape(expected.shape)
    assert products.dtype == torch.float32
    torch.testing.assert_close(products.double(), expected, rtol=1e-5, atol=1e-4)


def test_a_fisher_matrix_sees_the_parameters_precision():
    contribution = linear(50)
    exact = OuterContribution(
        contribution.activations.float(), contribution.output_gradients.float(), contribution.shape
    )
    forms = []
    for each in (contribution, exact):
        gradient = gradient_of(each)
        approximation = EKFAC("weight", tuple(each.shape), FisherOptions())
        while not approximation.complete:
            approximation.update(gradient)
            approximation.finalize()
        forms.append(approximation.quadratic_form(gradient))
    torch.testing.assert_close(forms[0], forms[1], rtol=0, atol=0)


NORMS = {
    "batch": lambda: nn.BatchNorm2d(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "layer": lambda: nn.LayerNorm([4, 6, 6]),
    "rms": lambda: nn.RMSNorm([4, 6, 6]),
}


class Normed(nn.Module):
    """Notes of which precision a norm's output is."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 3, padding=1), norm
        self.seen: list[torch.dtype] = []

    def log_prob(self, X: Tensor) -> Tensor:
        output = self.norm(self.convolution(X))
        self.seen.append(output.dtype)
        return F.silu(output).float().square().sum((1, 2, 3))


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NORMS)
def test_the_output_of_a_norm_has_the_precision_that_torch_gives_it(name, autocast):
    module = Normed(NORMS[name]()).eval()
    X = half(N, 1, 6, 6).float()
    with torch.autocast("cpu", getattr(torch, autocast)):
        module.log_prob(X)
    (expected,) = module.seen
    layer_gradient_norms(module, X, engine="capture", autocast=autocast)
    assert expected == getattr(torch, autocast)
    assert set(module.seen) == {expected}

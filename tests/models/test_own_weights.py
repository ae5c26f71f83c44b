"""Convolutions as products of matrices against torch's own, one sample after another."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from skgradood.models._own_weights import ConvolutionsAsProducts

CASES = {
    "plain": ((3, 7, 8), (4, 3, 3, 2), {}),
    "stride and padding": ((3, 7, 8), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    "two numbers each": (
        (2, 9, 7),
        (4, 2, 3, 3),
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    ),
    "one place": ((3, 4, 4), (5, 3, 4, 4), {}),
    "in groups": ((4, 6, 6), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "padding by name": ((2, 6, 6), (3, 2, 3, 3), {"padding": "same"}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_a_convolution(case, bias):
    image, kernel, options = CASES[case]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, weight = draw(5, *image), draw(5, *kernel)
    inputs = [x, weight, draw(5, kernel[0])] if bias else [x, weight]

    def of_one(x, weight, bias=None):
        return F.conv2d(x[None], weight, bias, **options)[0]

    with ConvolutionsAsProducts():
        together = torch.func.vmap(of_one)(*inputs)
    alone = torch.stack([of_one(*sample) for sample in zip(*inputs, strict=True)])
    torch.testing.assert_close(together, alone)
    direction = draw(*alone.shape).detach()
    ours = torch.autograd.grad((together * direction).sum(), inputs)
    theirs = torch.autograd.grad((alone * direction).sum(), inputs)
    torch.testing.assert_close(ours, theirs)


def test_what_is_no_batch_of_images_is_left_alone(untouched_global_state):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 5, 5, generator=generator)
    weight = torch.randn(3, 2, 3, 3, generator=generator)
    expected = F.conv2d(image, weight)
    with ConvolutionsAsProducts():
        assert torch.equal(F.conv2d(image, weight), expected)

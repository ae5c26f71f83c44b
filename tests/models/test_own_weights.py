"""Weights of every sample's own against torch's functions, one sample after another."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from skgradood.models._own_weights import ConvolutionsAsProducts, NoRule, OwnWeights

CASES = {
    "plain": ((3, 7, 8), (4, 3, 3, 2), {}),
    "stride and padding": ((3, 7, 8), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    "two numbers each": (
        (2, 9, 7),
        (4, 2, 3, 3),
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    ),
    "one place": ((3, 4, 4), (5, 3, 4, 4), {}),
    "one place, padding": ((3, 2, 3), (5, 3, 4, 4), {"stride": 2, "padding": (1, 2)}),
    "padding beyond the kernel": ((2, 3, 2), (3, 2, 2, 3), {"stride": 5, "padding": (1, 4)}),
    "few places, dilated": ((2, 3, 3), (3, 2, 5, 3), {"padding": 3, "dilation": 2, "stride": 3}),
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


def own(*shapes, n=5):
    """Parameters and n copies of each, other than they are."""
    generator = torch.Generator().manual_seed(1)
    parameters = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    copies = [
        torch.randn(n, *s, generator=generator, dtype=torch.float64).requires_grad_()
        for s in shapes
    ]
    return parameters, copies


FUNCTIONS = {
    **{
        name: (image, [kernel, kernel[:1]], options)
        for name, (image, kernel, options) in CASES.items()
        if "in groups" != name != "padding by name"
    },
    "linear": ((7,), [(3, 7), (3,)], {}),
    "linear of several": ((2, 4, 7), [(3, 7), (3,)], {}),
    "batch normalisation": ((3, 2, 4), [(3,), (3,)], {"training": False}),
    "batch normalisation of rows": ((3,), [(3,), (3,)], {"training": False}),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_every_sample_meets_its_own_weights(case):
    shape, shapes, options = FUNCTIONS[case]
    (parameters, copies), (_, (x,)) = own(*shapes), own(shape)
    moments = torch.linspace(-1, 1, 3, dtype=torch.float64), torch.arange(1.0, 4.0).double()

    def run(x, weight, bias):
        if case.startswith("batch"):
            return F.batch_norm(x, *moments, weight, bias, **options)
        return (F.linear if case.startswith("linear") else F.conv2d)(x, weight, bias, **options)

    survey = OwnWeights(parameters, copies)
    with survey:
        together = run(x, *parameters)
    each = zip(x, *copies, strict=True)
    alone = torch.cat([run(x[None], weight, bias) for x, weight, bias in each])
    torch.testing.assert_close(together, alone)
    direction = own(alone.shape)[0][0]
    ours = torch.autograd.grad((together * direction).sum(), [x, *copies])
    theirs = torch.autograd.grad((alone * direction).sum(), [x, *copies])
    torch.testing.assert_close(ours, theirs)

    # Parts alone give the same, and what is left out has no gradient.
    parts = survey.parts_in_use()
    with OwnWeights(parameters, [c[:, *p] for c, p in zip(copies, parts, strict=True)], parts):
        torch.testing.assert_close(run(x, *parameters), alone)
    for gradient, part in zip(theirs[1:], parts, strict=True):
        left_out = gradient.clone()
        left_out[:, *part] = 0
        assert not left_out.any()


def test_taps_that_meet_nothing_but_padding_are_left_out():
    (parameters, copies), (_, (x,)) = own((5, 3, 4, 4)), own((3, 2, 2))
    survey = OwnWeights(parameters, copies)
    with survey:
        F.conv2d(x, *parameters, stride=2, padding=1)
    assert survey.parts_in_use() == [(slice(None), slice(None), slice(1, 3), slice(1, 3))]
    with survey:  # one that has another use is needed whole
        F.conv2d(x, *parameters, stride=2, padding=2)
    assert survey.parts_in_use() == [(slice(None),) * 4]


def test_functions_without_a_rule_are_refused(untouched_global_state):
    (parameters, copies), (_, (x,)) = own((4, 2, 3, 3)), own((4, 6, 6))
    (weight,) = parameters
    with OwnWeights(parameters, copies):
        assert weight.dtype == torch.float64
        assert torch.equal(torch.relu(x), x.clamp(min=0))
        for refused in (
            lambda: weight + 1,
            lambda: torch.cat([weight, weight]),
            lambda: weight.data,
            lambda: F.conv2d(x, weight, groups=2),
            lambda: F.conv2d(x[:, :2], weight, padding="same"),
            lambda: F.batch_norm(x, None, None, weight, weight, training=True),
        ):
            with pytest.raises(NoRule):
                refused()


def test_arguments_may_come_by_name(untouched_global_state):
    (parameters, copies), (_, (x,)) = own((4, 2, 3, 3)), own((2, 6, 6))
    (weight,), (values,) = parameters, copies
    expected = torch.cat([F.conv2d(a[None], w) for a, w in zip(x, values, strict=True)])
    with OwnWeights(parameters, copies):
        torch.testing.assert_close(F.conv2d(input=x, weight=weight), expected)
        # The input stands in another place than the first here.
        kept = torch.where(condition=x > 0, input=x, other=-x)
    assert torch.equal(kept, x.abs())
    with ConvolutionsAsProducts():
        torch.testing.assert_close(F.conv2d(input=x, weight=weight), F.conv2d(x, weight))

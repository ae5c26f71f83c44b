"""Forms of a decoder's functions for a CPU against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skgradood.models import VAE
from skgradood.models._fixed_weights import FixedWeights, _CrossEntropy, _TransposedConvolution

LAYERS = {
    "doubling": ((5, 3, 4), {"stride": 2, "padding": 1, "kernel_size": 4}),
    "to an odd size": (
        (3, 4, 3),
        {"stride": 2, "padding": 1, "kernel_size": 4, "output_padding": (1, 0)},
    ),
    "from one place": ((6, 1, 1), {"kernel_size": (3, 2), "bias": False}),
    "kernel no multiple of the step": ((2, 5, 4), {"stride": (3, 2), "kernel_size": (4, 5)}),
    "kernel smaller than the step": ((2, 3, 3), {"stride": 3, "kernel_size": 2, "padding": 0}),
    "more padding than taps": ((2, 6, 6), {"stride": 1, "kernel_size": 3, "padding": 3}),
    "dilated": ((2, 4, 4), {"kernel_size": 3, "dilation": 2}),
    "in groups": ((4, 4, 4), {"kernel_size": 3, "groups": 2, "padding": 1}),
}


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_transposed_convolutions(case, memory_format):
    shape, options = LAYERS[case]
    layer = nn.ConvTranspose2d(shape[0], 4, dtype=torch.float64, **options)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=i))
    x = drawn(3, *shape).detach().contiguous(memory_format=memory_format).requires_grad_()
    expected = layer(x)
    direction = drawn(*expected.shape, seed=5).detach()
    mode = FixedWeights()
    for _ in range(2):  # the second time with the kernels that it remembers
        with mode:
            found = layer(x)
        torch.testing.assert_close(found, expected)
        found, wanted = (
            torch.autograd.grad((values * direction).sum(), x, retain_graph=True)[0]
            for values in (found, expected)
        )
        torch.testing.assert_close(found, wanted)


def test_weights_that_are_computed_get_their_gradient():
    x, weight = drawn(2, 3, 4, 4), drawn(3, 2, 4, 4, seed=1)
    with FixedWeights():
        found = F.conv_transpose2d(x, 2 * weight, stride=2)
    expected = F.conv_transpose2d(x, 2 * weight, stride=2)
    gradients = [
        torch.autograd.grad((values**2).sum(), [x, weight]) for values in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shape", [(3, 7, 2, 4), (3, 7, 1, 2, 4), (3, 7)])
@pytest.mark.parametrize("classes_last", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_cross_entropy(shape, classes_last, scale):
    logits = scale * drawn(*shape).detach()
    if classes_last:
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    logits.requires_grad_()
    target = torch.arange(logits[:, 0].numel()).reshape(logits[:, 0].shape) % 7
    weight = drawn(*target.shape, seed=3).detach()
    expected = F.cross_entropy(logits, target, reduction="none")
    with FixedWeights():
        found = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad((weight * values).sum(), logits)[0] for values in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        {"reduction": "sum"},
        {"reduction": "none", "label_smoothing": 0.1},
    ],
)
def test_other_cross_entropies_are_left_alone(options):
    logits = drawn(3, 2, 4, 7).movedim(-1, 1)
    target = torch.full((3, 2, 4), 2)
    target[0, 0, 0] = -100  # to be ignored
    expected = F.cross_entropy(logits, target, **options)
    with FixedWeights():
        assert torch.equal(F.cross_entropy(logits, target, **options), expected)


def test_the_decoder_of_a_vae_takes_these_forms(monkeypatch):
    """What the tests above compare is what runs."""
    taken = []
    for function in (_TransposedConvolution, _CrossEntropy):

        def forward(ctx, *args, function=function, original=function.forward):
            taken.append(function)
            return original(ctx, *args)

        monkeypatch.setattr(function, "forward", staticmethod(forward))
    vae = VAE((1, 8, 8), latent_dim=2, width=2).eval()
    with FixedWeights():
        vae.log_prob(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert taken == [_TransposedConvolution] * 4 + [_CrossEntropy]


def test_arguments_may_come_by_name(untouched_global_state):
    x = drawn(2, 3, 4, 4)
    weight = nn.Parameter(drawn(3, 5, 4, 4, seed=1).detach())
    target = torch.randint(0, 5, (2, 8, 8), generator=torch.Generator().manual_seed(0))

    def run():
        logits = F.conv_transpose2d(input=x, weight=weight, stride=2, padding=1)
        return F.cross_entropy(input=logits, target=target, reduction="none")

    expected = run()
    with FixedWeights():
        found = run()
    torch.testing.assert_close(found, expected)
    assert isinstance(found.grad_fn, _CrossEntropy._backward_cls)


def test_large_logits_lose_no_digits(untouched_global_state):
    """Against float64: what all logits of a pixel have in common is taken off first."""
    logits = (drawn(2, 5, 3, 3).detach().float() + 1e4).contiguous(
        memory_format=torch.channels_last
    )
    target = torch.randint(0, 5, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    with FixedWeights():
        found = F.cross_entropy(logits, target, reduction="none")
    expected = F.cross_entropy(logits.double(), target, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)

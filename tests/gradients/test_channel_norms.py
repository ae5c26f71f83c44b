"""Norms over channels: the gradients of scale and shift, row by row, from one kernel of torch."""

import pytest
import torch

from skgradood.gradients.capture import norm_cuts
from skgradood.gradients.capture.norm_cuts import (
    GroupNormalisation,
    RunningNormalisation,
    Saved,
)


def tensors(*shape):
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, mean = (
        torch.randn(shape[1], generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return x, gradient, weight, mean


def by_autograd(function, x, gradient, weight):
    """Gradients of x, and of scale and shift of every row alone."""
    found = []
    for row, of_output in zip(x.split(1), gradient.split(1), strict=True):
        leaves = [t.clone().requires_grad_() for t in (row, weight, torch.zeros_like(weight))]
        output = function(leaves[0], *leaves[1:])
        found.append(torch.autograd.grad(output, leaves, of_output))
    of_x, of_scale, of_shift = zip(*found, strict=True)
    return torch.cat(of_x), torch.stack(of_scale), torch.stack(of_shift)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1, 1), (5, 6, 3, 4)])
@pytest.mark.parametrize("most_groups", [65535, 7])
def test_group_norm_equals_autograd_also_in_pieces(shape, most_groups, monkeypatch):
    monkeypatch.setattr(norm_cuts, "_MOST_GROUPS", most_groups)
    x, gradient, weight, _ = tensors(*shape)
    norm = GroupNormalisation(3, 1e-5)
    _, mean, rstd = norm.forward(x, weight, None)
    found = norm.backward(gradient, Saved(x, mean, rstd), weight, (True, True, True))
    expected = by_autograd(
        lambda row, w, b: torch.group_norm(row, 3, w, b, 1e-5), x, gradient, weight
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1, 1), (5, 6, 3, 4)])
def test_running_norm_equals_autograd(shape):
    x, gradient, weight, mean = tensors(*shape)
    variance = mean.square() + 0.5
    norm = RunningNormalisation(mean, variance, 1e-5)
    _, *saved = norm.forward(x, weight, None)
    found = norm.backward(gradient, Saved(x, *saved), weight, (True, True, True))
    expected = by_autograd(
        lambda row, w, b: torch.nn.functional.batch_norm(row, mean, variance, w, b, eps=1e-5),
        x,
        gradient,
        weight,
    )
    torch.testing.assert_close(found, expected)


def test_only_what_is_wanted_is_computed():
    x, gradient, weight, _ = tensors(5, 6, 3, 4)
    norm = GroupNormalisation(3, 1e-5)
    _, mean, rstd = norm.forward(x, weight, None)
    of_x, of_scale, of_shift = norm.backward(
        gradient, Saved(x, mean, rstd), weight, (False, True, False)
    )
    assert of_x is of_shift is None
    assert of_scale.shape == (5, 6)

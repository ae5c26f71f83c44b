"""A parameter with several uses: the norm of the sum, without a gradient for every use."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skgradood.gradients import contributions as contributions_of_one_use
from skgradood.gradients import layer_gradient_norms
from skgradood.gradients.contributions import (
    AlignedContribution,
    DenseContribution,
    EmbeddingContribution,
    OuterContribution,
)
from skgradood.gradients.convolution import ConvolutionContribution, ConvolutionGeometry
from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.shared import joined, tied_norms

N = 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def outer(positions: int, seed: int = 0, *, transposed: bool = False) -> OuterContribution:
    widths = (30, 20) if transposed else (20, 30)
    factors = (normal(N, positions, w, seed=seed + k) for k, w in enumerate(widths))
    return OuterContribution(*factors, torch.Size((30, 20)), transposed)


def embedding(positions: int, seed: int = 0) -> EmbeddingContribution:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(0, 30, (N, positions), generator=generator)
    return EmbeddingContribution(indices, normal(N, positions, 20, seed=seed), torch.Size((30, 20)))


def convolution(uses: int, seed: int = 0, *, size: int = 6) -> ConvolutionContribution:
    geometry = ConvolutionGeometry((1, 1), (1, 1), (1, 1), 1, False, (0, 0))
    sides = (normal(N, uses, c, size, size, seed=seed + c) for c in (4, 5))
    return ConvolutionContribution(*sides, torch.Size((5, 4, 3, 3)), geometry)


def gradient_of(contributions) -> LayerGradient:
    shape = contributions[0].shape
    return LayerGradient("weight", shape, N, torch.float64, torch.device("cpu"), contributions)


SEVERAL = {
    "vectors": [DenseContribution(normal(N, 7, seed=k)) for k in range(3)],
    "linear maps": [outer(k + 1, seed=k) for k in range(3)],
    "transposed": [outer(k + 1, seed=k, transposed=True) for k in range(2)],
    "look-ups": [embedding(k + 1, seed=k) for k in range(3)],
    "convolutions": [convolution(k + 1, seed=k) for k in range(3)],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_uses_of_one_form_are_one(name):
    parts = SEVERAL[name]
    expected = sum(part.dense(slice(None)) for part in parts)
    (found,) = joined(parts)
    torch.testing.assert_close(found.dense(slice(None)), expected)
    torch.testing.assert_close(found.squared_norm(), expected.flatten(1).square().sum(1))
    # The parts are still what they were.
    assert gradient_of(parts).dense().equal(expected)


def test_uses_of_other_forms_stay_apart():
    of_slices = [
        AlignedContribution(normal(N, 20), 0, torch.arange(N), N) for _ in range(2)
    ]  # neither is these, of which nothing is known
    parts = [outer(2), outer(2, transposed=True), convolution(1), convolution(1, size=7)]
    parts += [DenseContribution(normal(N, 30, 20).float()), *of_slices]
    assert joined(parts) == parts
    assert joined([]) == []


class Steps(nn.Module):
    """One linear map for all steps of a recursion."""

    def __init__(self, derived: bool) -> None:
        super().__init__()
        self.step, self.derived = nn.Linear(40, 40), derived

    def log_prob(self, X: Tensor) -> Tensor:
        weight = self.step.weight
        if self.derived:
            weight = weight / weight.norm(dim=1, keepdim=True)
        for _ in range(5):
            X = torch.tanh(F.linear(X, weight, self.step.bias))
        return X.square().sum(1)


@pytest.mark.parametrize("derived", [False, True])
def test_steps_of_a_recursion_are_served_at_once(derived, monkeypatch):
    module, X = Steps(derived).double(), normal(6, 40)
    expected = layer_gradient_norms(module, X, engine="loop")
    formed = []
    dense = OuterContribution.dense
    monkeypatch.setattr(
        OuterContribution, "dense", lambda self, rows: formed.append(self) or dense(self, rows)
    )
    norms = layer_gradient_norms(module, X, engine="capture", verify=False)
    torch.testing.assert_close(torch.tensor(norms), torch.tensor(expected), rtol=1e-9, atol=0)
    # What is derived is carried to the weight once, not once a use.
    assert len(formed) == (1 if derived else 0)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("positions", [(1, 1), (4, 6), (90, 5)])
def test_a_table_tied_to_a_linear_map(transposed, positions):
    parts = [embedding(positions[0]), outer(positions[1], transposed=transposed)]
    expected = sum(part.dense(slice(None)) for part in parts).flatten(1).square().sum(1)
    for order in (parts, parts[::-1]):
        norms, trusted = tied_norms(order)
        assert trusted.all()
        torch.testing.assert_close(norms, expected)
        torch.testing.assert_close(gradient_of(order).squared_norm(), expected)


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0])
def test_tied_norms_that_cancel_or_leave_the_range_are_formed(scale):
    table, rest = embedding(4), outer(1)
    picked = F.one_hot(table.indices, 30).double()
    # The linear map takes back what the look-up adds, and adds a thousandth of something else.
    linear = OuterContribution(
        torch.cat([-table.output_gradients, rest.activations], 1),
        torch.cat([picked, 1e-3 * rest.output_gradients], 1),
        table.shape,
    )
    for part in (table, linear):
        part.output_gradients = part.output_gradients.clone()
    table.output_gradients[1] *= scale
    linear.output_gradients[1] *= scale
    parts = [in_single(table), in_single(linear)]
    expected = sum(part.dense(slice(None)).double() for part in (table, linear))
    expected = expected.flatten(1).square().sum(1)
    gradient = LayerGradient("weight", table.shape, N, torch.float32, torch.device("cpu"), parts)
    naive, trusted = tied_norms(parts)
    assert not trusted[0]
    assert abs(naive[0] / expected[0] - 1) > 1e-3
    torch.testing.assert_close(gradient.squared_norm(), expected, rtol=2e-3, atol=0)


def in_single(part):
    floats = {
        name: value.float()
        for name, value in vars(part).items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    return replace(part, **floats)


def test_other_uses_are_not_tied():
    assert tied_norms([outer(2), outer(3)]) is None
    assert tied_norms([embedding(2), embedding(3), outer(1)]) is None
    assert tied_norms([embedding(2), convolution(1)]) is None


@pytest.mark.parametrize("transposed", [False, True])
def test_norms_of_a_large_weight_come_in_slices(transposed, monkeypatch):
    contribution = outer(50, transposed=transposed)
    expected = contribution.dense(slice(None)).flatten(1).square().sum(1)
    monkeypatch.setattr(contributions_of_one_use, "BLOCK_NUMBERS", 100)
    shapes = []
    dense = OuterContribution.dense
    monkeypatch.setattr(
        OuterContribution,
        "dense",
        lambda self, rows: shapes.append(self.shape) or dense(self, rows),
    )
    torch.testing.assert_close(contribution.squared_norm(), expected)
    assert max(shape.numel() for shape in shapes) <= 100

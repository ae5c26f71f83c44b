"""Parts of a parameter: where their elements lie, and what the parameter receives through them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from skgradood.gradients.contributions import (
    Contribution,
    DenseContribution,
    EmbeddingContribution,
    OuterContribution,
)
from skgradood.gradients.parts import PartsContribution, part_of, through_view
from tests.gradients.building import seeded

N = 3
SHAPE = (4, 6, 2)

VIEWS = {
    "all": lambda w: w[:],
    "one of a stack": lambda w: w[2],
    "one number": lambda w: w[1, 2, 1],
    "some": lambda w: w[1:3, ::2],
    "the last dimension": lambda w: w[..., 1],
    "turned": lambda w: w.permute(2, 0, 1),
    "flattened": lambda w: w.flatten(1),
    "a chunk": lambda w: w.chunk(3, 1)[1],
    "none": lambda w: w[4:],
    "a diagonal": lambda w: w.diagonal(),
    "one more dimension": lambda w: w[:, None, 3],
}
NO_PARTS = {
    "expanded": lambda w: w[:1].expand(3, -1, -1),
    "overlapping windows": lambda w: w.unfold(0, 3, 1),
    "a copy": lambda w: w[1] * 1,
    "detached": lambda w: w.detach()[1],
    "the other way round": lambda w: w.flip(0),
}


def leaf() -> nn.Parameter:
    return nn.Parameter(seeded(SHAPE, torch.float64))


def dense(view: Tensor) -> DenseContribution:
    return DenseContribution(seeded((N, *view.shape), torch.float64))


def by_autograd(view: Tensor, parameter: Tensor, received: Contribution) -> Tensor:
    rows = [
        torch.autograd.grad(view, parameter, row, retain_graph=True)[0]
        for row in received.dense(slice(None))
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("name", VIEWS)
def test_a_parameter_receives_what_autograd_carries_through_a_view(name):
    parameter = leaf()
    view = VIEWS[name](parameter)
    received = dense(view)
    part = part_of(view, parameter)
    assert part is not None
    carried = through_view(received, part, parameter.shape)
    expected = by_autograd(view, parameter, received)
    torch.testing.assert_close(carried.dense(slice(None)), expected)
    torch.testing.assert_close(carried.dense(slice(1, 2)), expected[1:2])
    torch.testing.assert_close(carried.squared_norm(), expected.square().sum((1, 2, 3)))


@pytest.mark.parametrize("name", NO_PARTS)
def test_what_is_no_part(name):
    parameter = leaf()
    assert part_of(NO_PARTS[name](parameter), parameter) is None


def test_a_view_of_something_else_is_no_part():
    assert part_of(leaf()[1], leaf()) is None


def test_a_parameter_laid_out_otherwise_has_no_parts():
    parameter = nn.Parameter(seeded((4, 6), torch.float64).T)
    assert part_of(parameter[1], parameter) is None


def test_numbers_of_a_complex_parameter_are_no_parts():
    parameter = nn.Parameter(torch.view_as_complex(seeded((4, 2), torch.float64)))
    assert part_of(parameter.real, parameter) is None
    assert part_of(parameter.conj(), parameter) is None
    assert part_of(parameter[1:].imag, parameter) is None
    assert part_of(parameter[1:], parameter) is not None


def outer(view: Tensor, positions: int, seed: int) -> OuterContribution:
    generator = torch.Generator().manual_seed(seed)
    a, g = (
        torch.randn(N, positions, size, generator=generator, dtype=torch.float64)
        for size in (view.shape[1], view.shape[0])
    )
    return OuterContribution(a, g, view.shape)


# Which parts of the leaf are used: apart from each other, side by side, twice, or with some in
# common.
USES = {
    "apart": [lambda w: w[0], lambda w: w[2]],
    "side by side": [lambda w: w[:, :, 0], lambda w: w[:, :, 1]],
    "twice": [lambda w: w[1], lambda w: w[3], lambda w: w[1]],
    "overlapping": [lambda w: w[1], lambda w: w[:, 2]],
    "overlapping in one": [lambda w: w[1, 1:], lambda w: w[1, :-1]],
}


@pytest.mark.parametrize("positions", [1, 5])
@pytest.mark.parametrize("name", USES)
def test_uses_of_parts_add_up(name, positions):
    parameter = leaf()
    views = [use(parameter) for use in USES[name]]
    received = [outer(view, positions, seed) for seed, view in enumerate(views)]
    parts = [part_of(view, parameter) for view in views]
    assert None not in parts
    carried = [
        through_view(r, part, parameter.shape) for r, part in zip(received, parts, strict=True)
    ]
    together = PartsContribution.joined(carried)
    assert len(together.parts) == 2  # the same part once
    expected = sum(by_autograd(v, parameter, r) for v, r in zip(views, received, strict=True))
    torch.testing.assert_close(together.dense(slice(None)), expected)
    torch.testing.assert_close(together.squared_norm(), expected.square().sum((1, 2, 3)))


def test_a_linear_map_by_a_transposed_or_reshaped_weight_is_one_by_the_weight():
    parameter = nn.Parameter(seeded((4, 6), torch.float64))
    for view in (parameter.T, parameter.view(6, 4), parameter.view(2, 12)):
        received = outer(view, 5, 0)
        carried = through_view(received, part_of(view, parameter), parameter.shape)
        assert isinstance(carried, OuterContribution)
        torch.testing.assert_close(
            carried.dense(slice(None)), by_autograd(view, parameter, received)
        )


def test_a_part_of_a_table_that_is_looked_up():
    parameter = leaf()
    view = parameter[2]
    indices = torch.randint(0, 6, (N, 5), generator=torch.Generator().manual_seed(0))
    received = EmbeddingContribution(indices, seeded((N, 5, 2), torch.float64), view.shape)
    carried = through_view(received, part_of(view, parameter), parameter.shape)
    expected = by_autograd(view, parameter, received)
    torch.testing.assert_close(carried.dense(slice(None)), expected)
    torch.testing.assert_close(carried.squared_norm(), expected.square().sum((1, 2, 3)))

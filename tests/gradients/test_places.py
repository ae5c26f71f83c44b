"""Data picked from and put at places that are numbers: whose they are is looked at."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from skgradood import layer_gradient_norms
from skgradood.gradients import EngineWarning, GradientEngine, SquaredNorms, layer_layout
from skgradood.gradients.capture import CaptureStrategy
from skgradood.gradients.capture.axes import BatchAxis, axis_of_shadow
from skgradood.gradients.capture.places import (
    Move,
    axis_after_placing,
    axis_of_picked,
    axis_of_positions,
)
from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.func import FuncStrategy
from skgradood.gradients.likelihood import LogLikelihood
from skgradood.gradients.loop import LoopStrategy
from skgradood.gradients.verification import find_differing_value
from tests.gradients import modules
from tests.gradients.building import SquaredOutput, built, seeded
from tests.gradients.cases import CASES
from tests.gradients.expert_modules import LimitedExperts

N, POSITIONS = 3, 4
CPU = torch.device("cpu")
ROWS = BatchAxis(0, N, inner=POSITIONS)
GETITEM, SETITEM = torch.Tensor.__getitem__, torch.Tensor.__setitem__


def numbers(seed: int, size: int, high: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (size,), generator=generator)


def owned_by(index: Tensor, owners: Tensor) -> BatchAxis:
    """The axis of an index of which entry k is sample ``owners[k]``'s."""
    axis = axis_of_shadow(owners.float() + 1, N)
    assert axis is not None
    return axis


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2 * N * POSITIONS))
def test_what_is_picked_belongs_to_whom_it_was_picked_from(seed, size):
    rows = ROWS.sample_of_slice()
    index = numbers(seed, size, len(rows))
    moved = torch.randn(len(rows), 5)
    move = Move(GETITEM, (moved, index), {}, {id(moved): ROWS}, N)
    axis = axis_of_picked(move, moved[index])
    assert axis is not None
    torch.testing.assert_close(axis.sample_of_slice(), rows[index])


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2 * N * POSITIONS))
def test_places_of_a_sample_pick_from_no_other(seed, size):
    rows = ROWS.sample_of_slice()
    index, owners = numbers(seed, size, len(rows)), numbers(seed + 1, size, N)
    moved = torch.randn(len(rows), 5)
    axes = {id(moved): ROWS, id(index): owned_by(index, owners)}
    for function, args in ((GETITEM, (moved, index)), (torch.index_select, (moved, 0, index))):
        axis = axis_of_picked(Move(function, args, {}, axes, N), moved[index])
        assert (axis is not None) == bool((rows[index] == owners).all())


LAYOUTS = {
    "first": lambda x, i, j: (i,),
    "first, and one of the last": lambda x, i, j: (i, 1),
    "second": lambda x, i, j: (slice(None), i),
    "two": lambda x, i, j: (i, j),
    "two that are apart": lambda x, i, j: (i, slice(None), j),
    "the last": lambda x, i, j: (..., j),
    "with a new one": lambda x, i, j: (i, None, slice(1, 3)),
    "after a slice": lambda x, i, j: (slice(0, 2), i),
    "one number": lambda x, i, j: (i[0],),
}


@pytest.mark.parametrize("dim", range(3))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_an_index(layout, dim):
    """Content that is its sample's number tells where it went."""
    for seed in range(20):
        moved = torch.zeros(3, 3, 3)
        axis = BatchAxis(dim, N)
        moved += torch.arange(3.0).reshape([3 if d == dim else 1 for d in range(3)])
        parts = LAYOUTS[layout](moved, numbers(seed, 3, 3), numbers(seed + 1, 3, 3))
        output = moved[parts]
        found = axis_of_picked(Move(GETITEM, (moved, parts), {}, {id(moved): axis}, N), output)
        if found is not None:
            expected = found.shadow(output.shape, CPU) - 1
            torch.testing.assert_close(output, expected)
        else:
            assert axis_of_shadow(output + 1, N) is None


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2 * N * POSITIONS), st.booleans())
def test_what_is_put_stays_its_samples(seed, size, own):
    rows = ROWS.sample_of_slice()
    index, owners = numbers(seed, size, len(rows)), numbers(seed + 1, size, N)
    owners = rows[index] if own else owners
    target, value = torch.zeros(len(rows), 5), torch.randn(size, 5)
    axes = {id(value): owned_by(value, owners)}
    one_owner = all(len(owners[index == row].unique()) < 2 for row in range(len(rows)))
    for into in (None, ROWS):
        known = axes if into is None else axes | {id(target): into}
        agrees = bool((owners == rows[index]).all())
        for move in (
            Move(torch.Tensor.index_add_, (target, 0, index, value), {}, known, N),
            Move(torch.Tensor.index_put_, (target, (index,), value, True), {}, known, N),
            Move(torch.Tensor.scatter_add_, (target, 0, index[:, None].expand(-1, 5), value), {},
                 known, N),
        ):  # fmt: skip
            axis = axis_after_placing(move)
            if into is not None:
                assert axis == (ROWS if agrees else None)
            elif not one_owner:
                assert axis is None
            elif axis is not None:
                torch.testing.assert_close(axis.sample_of_slice()[index], owners)


def test_where_data_are_not_zero():
    x = torch.tensor([[0, 1], [2, 0], [3, 4]])
    axis = axis_of_positions(x, BatchAxis(0, N), N)
    assert axis.owners is not None
    assert axis.owners.samples.tolist() == [0, 1, 2, 2]
    assert axis_of_positions(x, BatchAxis(0, N, inner=1), N) == axis
    none = axis_of_positions(torch.zeros_like(x), BatchAxis(0, N), N)
    assert none.size == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, N - 1), max_size=9))
def test_slices_by_sample_are_filled_up_with_zeros(owners):
    samples = torch.tensor(owners, dtype=torch.int64)
    slices = torch.randn(len(owners), 2)
    axis = owned_by(slices, samples)
    if axis.owners is None:
        return
    padded = axis.owners.padded(slices)
    for sample in range(N):
        own = slices[samples == sample]
        torch.testing.assert_close(padded[sample, : len(own)], own)
        assert not padded[sample, len(own) :].any()
    torch.testing.assert_close(padded.sum(1), axis.sum_by_sample(slices, N))


# The second batch, of four, has more rows for an expert than that takes.
ROWS_OF_TWO_BATCHES = torch.tensor(
    [[1, 0.2, 0.3], [-1, 0.4, -0.1], [1, 0.3, 0.2], [-1, 0.1, 0.7],
     [1, 0.2, 0.3], [2, 0.2, 0.1], [0.5, 0.3, 0.1], [0.2, 0.1, 0.4]], dtype=torch.float64,
)  # fmt: skip


def limited() -> nn.Module:
    module = SquaredOutput(built(lambda: LimitedExperts(3))).double()
    modules.randomise(module)
    return module


def test_places_of_several_rows_are_verified_in_every_batch():
    module, X = limited(), ROWS_OF_TWO_BATCHES
    loop = layer_gradient_norms(module, X, engine="loop")
    first = layer_gradient_norms(module, X[:4], engine="capture", batch_size=4)
    np.testing.assert_allclose(first, loop[:4], rtol=1e-9)
    with pytest.raises(StrategyRefused, match="couple the rows"):
        layer_gradient_norms(module, X, engine="capture", batch_size=4)
    with pytest.warns(EngineWarning, match="couple the rows"):
        norms = layer_gradient_norms(module, X, batch_size=4)
    np.testing.assert_allclose(norms, loop, rtol=1e-9)


class FirstThree(nn.Module):
    """An expert serves the first three rows that come; the first batch has no more."""

    def __init__(self):
        super().__init__()
        self.expert = nn.Linear(4, 4, bias=False)

    def forward(self, x):
        rows = (x[:, 0] > 0).nonzero()[:, 0][:3]
        return x.index_add(0, rows, self.expert(x[rows]).tanh())


class EverySecond(FirstThree):
    """The first and the last row, which are looked at first, are both at even places."""

    def forward(self, x):
        out = x.clone()
        out[::2] = self.expert(x[::2]).tanh()
        return out


class TopSix(FirstThree):
    """Six rows are chosen by their content: which they are does not depend on places."""

    def forward(self, x):
        rows = x.sum(1).argsort(descending=True)[:6]
        return x.index_add(0, rows, self.expert(x[rows]).tanh())


class Masked(FirstThree):
    """Rows take the values of others where the first ones are masked."""

    def forward(self, x):
        h = self.expert(x)
        return h.sum(1).masked_scatter(x[:, 0] > 0, h.tanh().sum(1))[:, None]


@pytest.mark.parametrize("rows", [9, 12])
@pytest.mark.parametrize("batch_size", [3, 4, 5, 9])
@pytest.mark.parametrize("body", [FirstThree, EverySecond, TopSix, Masked])
def test_what_leaves_rows_out_is_compared_with_other_batches(body, batch_size, rows):
    module = SquaredOutput(built(body)).double()
    modules.randomise(module)
    X = seeded((rows, 4), torch.float64)
    X[:4, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    X[4:, 0] = X[4:, 0].abs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        norms = layer_gradient_norms(module, X, batch_size=batch_size)
    # What the loop has is what a row has alone.
    np.testing.assert_allclose(norms, layer_gradient_norms(module, X, engine="loop"), rtol=1e-9)


def test_the_shape_of_one_row_is_no_reason_to_compare():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def log_prob(self, X):
            return (X * self.factor).sin().sum(1) / X[0].numel()

    engine = GradientEngine(Sized(), engine="capture")
    engine.run(seeded((4, 3), torch.float64), SquaredNorms(layer_layout(engine.module)))
    assert not engine._ladder[0].leaves_out


def test_a_rank_in_the_batch_is_no_number_of_a_row():
    class Ranked(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            rank = x[:, 0].argsort().argsort()
            return x * self.factor * rank[:, None]

    with pytest.raises(StrategyRefused, match="cannot be told apart"):
        layer_gradient_norms(
            SquaredOutput(Ranked()), seeded((4, 3), torch.float64), engine="capture", verify=False
        )


@pytest.mark.parametrize("strategy", [CaptureStrategy, FuncStrategy, LoopStrategy])
def test_values_are_those_of_an_ordinary_pass(strategy):
    module, X = CASES["mlp"].make(torch.float64)
    found = strategy(module.eval(), LogLikelihood()).values(X)
    torch.testing.assert_close(found, module.log_prob(X).detach())
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("found", "differs"),
    [(1.0, True), (1e-9, False), (torch.nan, True), (torch.inf, True), (None, False)],
)
def test_a_value_in_a_batch_that_is_not_that_of_the_row_alone(found, differs):
    """Also where it is no number; a row that is none alone may be none in the batch."""
    module, X = CASES["mlp"].make(torch.float64)
    X = X.clone()
    X[1, 0] = torch.nan
    values = module.eval().log_prob(X).detach()
    if found is not None:
        values[3] += found
    disagreement = find_differing_value(module, LogLikelihood(), X, [1, 3], values)
    assert (disagreement is not None) == differs
    assert disagreement is None or disagreement.row == 3

"""Recurrent layers, unrolled; the uses of a recurrent weight at all times are one.

A recurrent weight W meets the state before each time t in a product h_{t-1} Wᵀ. Its gradient
Σ_t δ_t hᵀ_{t-1} needs the gradients δ_t of these products and the states alone, so the
recurrence runs with the plain value of W, and a term of zeros in every product tells δ_t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from skgradood.gradients.capture.axes import BatchAxis, Owners
from skgradood.gradients.capture.cuts import Operand
from skgradood.gradients.capture.functions import name_of
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.rules.linear_map import apply_linear
from skgradood.gradients.contributions import DenseContribution, OuterContribution
from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.precision import is_autocast_on

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class _Times:
    """How the times of sequences lie in a tensor.

    Attributes
    ----------
    axis : BatchAxis
        That of the tensor.
    sizes : list of int or None
        None: the first dimension runs over times, the second over samples. Otherwise the first
        one has as many rows of one time as sequences last so long, then those of the next: a
        packed sequence, in which longer ones come first.
    """

    axis: BatchAxis
    sizes: list[int] | None = None

    def parts(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The tensor at every time, (sequences that last so long, features)."""
        return tensor.unbind() if self.sizes is None else tensor.split(self.sizes)

    def joined(self, parts: list[Tensor]) -> Tensor:
        """One tensor of what there is at every time."""
        return torch.stack(parts) if self.sizes is None else torch.cat(parts)

    def axis_of_states(self) -> BatchAxis:
        """The axis of a state's second dimension, after that of the layers."""
        if self.sizes is None:
            return self.axis.at(1)
        n = self.axis.owners.n if self.axis.owners is not None else self.axis.n
        first = self.axis.sample_of_slice()[: self.sizes[0]]
        if torch.equal(first, torch.arange(n)):
            return BatchAxis(1, n)
        return BatchAxis(1, len(first), owners=Owners(first, n))


@dataclass
class _Product:
    """``state @ weight.T + bias`` at every time, for states that come one after another."""

    weight: Operand
    bias: Operand | None
    times: _Times
    states: list[Tensor] = field(default_factory=list)
    zeros: list[Tensor] = field(default_factory=list)
    backwards: bool = False

    def __call__(self, state: Tensor) -> Tensor:
        zeros = self.zeros[-len(self.states) - 1 if self.backwards else len(self.states)]
        self.states.append(state.detach())
        bias = None if self.bias is None else self.bias.value
        return F.linear(state, self.weight.value, bias) + zeros


class _RecurrentCut(torch.autograd.Function):
    """Zeros at all times, whose gradients are those of a product at every time."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, shape: tuple[int, ...], product: _Product) -> Tensor:
        ctx.product = product
        return product.weight.value.new_zeros(()).expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        weight, bias, times = ctx.product.weight, ctx.product.bias, ctx.product.times
        gradients = times.axis.rows(gradient)
        if weight.use:
            states = ctx.product.states[:: -1 if ctx.product.backwards else 1]
            states = times.axis.rows(times.joined(states))
            weight.use.deliver(OuterContribution(states, gradients, weight.use.tensor.shape))
        if bias and bias.use:
            bias.use.deliver(DenseContribution(gradients.sum(1)))
        return None, None, None


def _product(
    mode: CaptureMode,
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    times: _Times,
    backwards: bool,
) -> _Product:
    """The product for sequences x, (times, samples, features) or packed."""
    bias_operand = None if bias is None else mode.operand(bias)
    product = _Product(mode.operand(weight), bias_operand, times, backwards=backwards)
    shape = (*x.shape[:-1], weight.shape[0])
    product.zeros = list(times.parts(_RecurrentCut.apply(mode.anchor, shape, product)))
    return product


def _lstm_step(projected: Tensor, product: Callable[[Tensor], Tensor], state: State) -> State:
    gates = projected + product(state[0])
    entered, forgotten, candidate, shown = gates.chunk(4, -1)
    cell = forgotten.sigmoid() * state[1] + entered.sigmoid() * candidate.tanh()
    return shown.sigmoid() * cell.tanh(), cell


def _gru_step(projected: Tensor, product: Callable[[Tensor], Tensor], state: State) -> State:
    reset, update, new = projected.chunk(3, -1)
    own_reset, own_update, own_new = product(state[0]).chunk(3, -1)
    candidate = (new + (reset + own_reset).sigmoid() * own_new).tanh()
    kept = (update + own_update).sigmoid()
    return (candidate + kept * (state[0] - candidate),)


def _elman_step(
    projected: Tensor,
    product: Callable[[Tensor], Tensor],
    state: State,
    *,
    activation: Callable[[Tensor], Tensor],
) -> State:
    return (activation(projected + product(state[0])),)


_Step = Callable[[Tensor, Callable[[Tensor], Tensor], State], State]

_STEPS: dict[Callable, _Step] = {
    torch.lstm: _lstm_step,
    torch.gru: _gru_step,
    torch.rnn_tanh: partial(_elman_step, activation=torch.tanh),
    torch.rnn_relu: partial(_elman_step, activation=torch.relu),
}
_CELLS: dict[Callable, _Step] = {
    torch.lstm_cell: _lstm_step,
    torch.gru_cell: _gru_step,
    torch.rnn_tanh_cell: _STEPS[torch.rnn_tanh],
    torch.rnn_relu_cell: _STEPS[torch.rnn_relu],
}


def layers(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> tuple:
    """``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` and ``torch.rnn_relu``."""
    rest = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
    options = dict(zip(("input", *rest, "batch_first"), args, strict=False)) | kwargs
    is_packed = not isinstance(options.get("has_biases"), bool)  # there are sizes in second place
    if is_packed:
        options = dict(zip(("input", "batch_sizes", *rest), args, strict=False)) | kwargs
    x, weights = options["input"], list(options["params"])
    if options["train"] and options["dropout"]:
        raise StrategyRefused(f"{name_of(function)} with dropout between layers")
    if is_autocast_on(x.device.type):
        raise StrategyRefused(f"{name_of(function)} in lower precision")
    batch_dim = 1
    if is_packed:
        times = _packed(mode, x, options["batch_sizes"])
    else:
        batch_dim = 0 if options["batch_first"] else 1
        x = _by_samples(mode, x, batch_dim, None)
        times = _Times(mode.axis_of(x).at(1))
        x = x if batch_dim == 1 else x.transpose(0, 1)
    of_states = times.axis_of_states()
    states = options["hx"] if isinstance(options["hx"], (tuple, list)) else (options["hx"],)
    states = [_by_samples(mode, state, 1, of_states) for state in states]
    ways = 2 if options["bidirectional"] else 1
    per_way = len(weights) // (options["num_layers"] * ways)
    ends: list[State] = []
    for _ in range(options["num_layers"]):
        mode.mark(x, times.axis)
        outputs = []
        for way in range(ways):
            state = tuple(s[len(ends)] for s in states)
            own, weights = weights[:per_way], weights[per_way:]
            output, end = _unrolled(
                mode, _STEPS[function], x, times, state, own, options["has_biases"],
                backwards=way == 1,
            )  # fmt: skip
            outputs.append(output)
            ends.append(end)
        x = torch.cat(outputs, -1)
    last = [torch.stack(column) for column in zip(*ends, strict=True)]
    x = x if batch_dim == 1 else x.transpose(0, 1)
    mode.mark(x, times.axis if is_packed else times.axis.at(batch_dim))
    for tensor in last:
        mode.mark(tensor, of_states)
    return (x, *last)


def _packed(mode: CaptureMode, x: Tensor, batch_sizes: Tensor) -> _Times:
    """Times of a packed sequence; sequences end at lengths that may come from several samples."""
    axis = mode.axis_of(x)
    if axis.dim != 0:
        raise StrategyRefused("a packed sequence whose first dimension does not hold the samples")
    mode.without_samples(batch_sizes)
    return _Times(axis, batch_sizes.tolist())


def _unrolled(
    mode: CaptureMode,
    step: _Step,
    x: Tensor,
    times: _Times,
    state: State,
    weights: list[Tensor],
    has_biases: bool,
    *,
    backwards: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction over sequences: outputs, and the last state of each."""
    if any(mode.is_data(weight) for weight in weights):
        raise StrategyRefused("a recurrent layer whose weights are made from data")
    w_in, w_own, *rest = weights
    b_in = b_own = None
    if has_biases:
        b_in, b_own, *rest = rest
    bias = None if b_in is None else mode.operand(b_in)
    projected = times.parts(apply_linear(mode, x, mode.operand(w_in), bias))
    product = _product(mode, w_own, b_own, x, times, backwards)
    output = _product(mode, rest[0], None, x, times, backwards) if rest else None
    first, ended = state, []
    state = tuple(part[:0] for part in first) if backwards else state
    outputs: list[Tensor] = []
    for now in reversed(projected) if backwards else projected:
        # Backwards, shorter sequences enter on the way; forwards, they end.
        size, n_lasting = len(now), len(state[0])
        if n_lasting < size:
            state = tuple(
                torch.cat([part, new[n_lasting:size]])
                for part, new in zip(state, first, strict=True)
            )
        elif n_lasting > size:
            ended.append(tuple(part[size:] for part in state))
            state = tuple(part[:size] for part in state)
        state = step(now, product, state)
        if output is not None:
            state = (output(state[0]), *state[1:])
        outputs.append(state[0])
    ended.append(state)
    last = tuple(torch.cat(parts) for parts in zip(*reversed(ended), strict=True))
    return times.joined(outputs[::-1] if backwards else outputs), last


def cell(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Any:
    """``torch.lstm_cell``, ``torch.gru_cell`` and the cells of Elman networks."""
    names = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")
    options = dict.fromkeys(names) | dict(zip(names, args, strict=False)) | kwargs
    x, state = options["input"], options["hx"]
    if x.ndim != 2:
        raise StrategyRefused(f"{name_of(function)} of one sample")
    state = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    known = next(t for t in (x, *state) if mode.is_data(t))
    axis = mode.axis_of(known)
    # A state of zeros is a constant: theirs row by row.
    x = _by_samples(mode, x, 0, axis)
    state = tuple(_by_samples(mode, part, 0, axis) for part in state)

    def product(part: Tensor, side: str) -> Tensor:
        with mode:
            return F.linear(part, options[f"w_{side}"], options[f"b_{side}"])

    # Between the products a step knows no parameters, and need not be watched.
    end = _CELLS[function](product(x, "ih"), partial(product, side="hh"), state)
    for part in end:
        mode.mark(part, axis.at(0))
    return end if function is torch.lstm_cell else end[0]


def _by_samples(mode: CaptureMode, tensor: Tensor, dim: int, axis: BatchAxis | None) -> Tensor:
    """The tensor as data that has its samples along ``dim``, divided as in ``axis``."""
    if axis is not None and not axis.at(dim).matches(tensor):
        raise StrategyRefused("a recurrent layer over something else than the rows of a batch")
    if axis is not None and mode.is_parameter(tensor):
        return mode.copies(tensor, tuple(tensor.shape), axis.at(dim))
    if axis is not None and not mode.is_data(tensor):
        tensor = tensor.view_as(tensor)
        mode.mark(tensor, axis.at(dim))
    if not mode.is_data(tensor) or mode.axis_of(tensor).dim != dim:
        raise StrategyRefused("a recurrent layer over something else than the rows of a batch")
    if axis is not None and mode.axis_of(tensor) != axis.at(dim):
        raise StrategyRefused("a recurrent layer over samples in another order")
    return tensor


RULES = dict.fromkeys(_STEPS, layers) | dict.fromkeys(_CELLS, cell)

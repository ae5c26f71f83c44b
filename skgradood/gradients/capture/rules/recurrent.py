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

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.cuts import Operand
from skgradood.gradients.capture.functions import name_of
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.rules.linear_map import apply_linear
from skgradood.gradients.contributions import DenseContribution, OuterContribution
from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.precision import is_autocast_on

State = tuple[Tensor, ...]


@dataclass
class _Product:
    """``state @ weight.T + bias`` at every time, for states that come one after another."""

    weight: Operand
    bias: Operand | None
    axis: BatchAxis
    states: list[Tensor] = field(default_factory=list)
    zeros: list[Tensor] = field(default_factory=list)

    def __call__(self, state: Tensor) -> Tensor:
        zeros = self.zeros[len(self.states)]
        self.states.append(state.detach())
        bias = None if self.bias is None else self.bias.value
        return F.linear(state, self.weight.value, bias) + zeros


class _RecurrentCut(torch.autograd.Function):
    """Zeros (times, samples, out), whose gradients are those of a product at every time."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, shape: tuple[int, ...], product: _Product) -> Tensor:
        ctx.product = product
        return product.weight.value.new_zeros(()).expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        weight, bias, axis = ctx.product.weight, ctx.product.bias, ctx.product.axis
        gradients = axis.rows(gradient)
        if weight.use:
            states = axis.rows(torch.stack(ctx.product.states))
            weight.use.deliver(OuterContribution(states, gradients, weight.use.tensor.shape))
        if bias and bias.use:
            bias.use.deliver(DenseContribution(gradients.sum(1)))
        return None, None, None


def _product(mode: CaptureMode, weight: Tensor, bias: Tensor | None, x: Tensor) -> _Product:
    """The product for a sequence x, (times, samples, features)."""
    bias_operand = None if bias is None else mode.operand(bias)
    product = _Product(mode.operand(weight), bias_operand, mode.axis_of(x))
    shape = (*x.shape[:2], weight.shape[0])
    product.zeros = list(_RecurrentCut.apply(mode.anchor, shape, product))
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
    names = (
        *("input", "hx", "params", "has_biases", "num_layers", "dropout", "train"),
        *("bidirectional", "batch_first"),
    )
    options = dict(zip(names, args, strict=False)) | kwargs
    if not isinstance(options.get("has_biases"), bool):  # there are sizes in the second place
        raise StrategyRefused(f"{name_of(function)} of packed sequences")
    x, weights = options["input"], list(options["params"])
    if options["train"] and options["dropout"]:
        raise StrategyRefused(f"{name_of(function)} with dropout between layers")
    if is_autocast_on(x.device.type):
        raise StrategyRefused(f"{name_of(function)} in lower precision")
    batch_dim = 0 if options["batch_first"] else 1
    x = _by_samples(mode, x, batch_dim, None)
    axis = mode.axis_of(x).at(1)
    states = options["hx"] if isinstance(options["hx"], (tuple, list)) else (options["hx"],)
    states = [_by_samples(mode, state, 1, axis) for state in states]
    x = x if batch_dim == 1 else x.transpose(0, 1)
    ways = 2 if options["bidirectional"] else 1
    per_way = len(weights) // (options["num_layers"] * ways)
    ends: list[State] = []
    for _ in range(options["num_layers"]):
        mode.mark(x, axis)
        outputs = []
        for way in range(ways):
            state = tuple(s[len(ends)] for s in states)
            own, weights = weights[:per_way], weights[per_way:]
            output, end = _unrolled(
                mode, _STEPS[function], x, state, own, options["has_biases"], backwards=way == 1
            )
            outputs.append(output)
            ends.append(end)
        x = torch.cat(outputs, -1)
    last = [torch.stack(column) for column in zip(*ends, strict=True)]
    x = x if batch_dim == 1 else x.transpose(0, 1)
    for tensor, dim in ((x, batch_dim), *((state, 1) for state in last)):
        mode.mark(tensor, axis.at(dim))
    return (x, *last)


def _unrolled(
    mode: CaptureMode,
    step: _Step,
    x: Tensor,
    state: State,
    weights: list[Tensor],
    has_biases: bool,
    *,
    backwards: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction over (times, samples, features): outputs, and the last state."""
    if any(mode.is_data(weight) for weight in weights):
        raise StrategyRefused("a recurrent layer whose weights are made from data")
    w_in, w_own, *rest = weights
    b_in = b_own = None
    if has_biases:
        b_in, b_own, *rest = rest
    bias = None if b_in is None else mode.operand(b_in)
    projected = apply_linear(mode, x, mode.operand(w_in), bias).unbind()
    product = _product(mode, w_own, b_own, x)
    output = _product(mode, rest[0], None, x) if rest else None
    outputs: list[Tensor] = []
    for now in reversed(projected) if backwards else projected:
        state = step(now, product, state)
        if output is not None:
            state = (output(state[0]), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


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

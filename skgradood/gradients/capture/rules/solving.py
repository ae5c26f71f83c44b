"""Linear systems with a matrix of parameters, and distances to vectors of parameters."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.rules.arguments import bound
from skgradood.gradients.capture.rules.elementwise import broadcast_axis, copies_for_broadcast
from skgradood.gradients.errors import StrategyRefused


def solve(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """Functions of two stacks of matrices, (…, d, d) and (…, d, k), that broadcast."""
    names, options = _SOLVERS[function], dict(kwargs)
    first, second = bound(names, args, kwargs)
    for name in names:
        options.pop(name, None)
    rest = args[2:]
    if first.ndim < 2 or second.ndim < 2 or "out" in options:
        raise StrategyRefused("a linear system with a vector on one side")
    if function in _AMBIGUOUS and second.shape == first.shape[:-1]:
        raise StrategyRefused("a linear system with a stack of vectors")
    axis = broadcast_axis(mode, [first, second], max(first.ndim, second.ndim))
    place = axis.dim - max(first.ndim, second.ndim)
    if place < -2:
        first, second = copies_for_broadcast(mode, (first, second))
        with mode:
            return function(first, second, *rest, **options)
    right = names.index("B") if "B" in names else names.index("input")
    columns = (first, second)[right]
    is_column = place == -1 and mode.is_data(columns) and options.get("left", True)
    if not is_column or mode.is_data((first, second)[1 - right]):
        raise StrategyRefused("a linear system over the dimension in which the samples lie")
    with mode:
        # The samples are columns: each is a system of its own.
        pair = [first.unsqueeze(-3), second.unsqueeze(-3)]
        pair[right] = columns.mT.unsqueeze(-1)
        return function(*pair, *rest, **options).squeeze(-1).mT


def cdist(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.cdist(x1, x2, p)`` of (…, i, d) and (…, j, d)."""
    first, second = bound(("x1", "x2"), args, kwargs)
    options = {key: value for key, value in kwargs.items() if key not in ("x1", "x2")}
    ndim = max(first.ndim, second.ndim)
    place = broadcast_axis(mode, [first, second], ndim).dim - ndim
    if place < -2:
        first, second = copies_for_broadcast(mode, (first, second))
        with mode:
            return function(first, second, *args[2:], **options)
    if place == -1 or (mode.is_data(first) and mode.is_data(second)):
        raise StrategyRefused("distances over the dimension in which the samples lie")
    with mode:
        if mode.is_data(first):
            pair = first.unsqueeze(-2), second.unsqueeze(-3)
            return function(*pair, *args[2:], **options).squeeze(-2)
        pair = first.unsqueeze(-3), second.unsqueeze(-2)
        return function(*pair, *args[2:], **options).squeeze(-1).mT


# A right-hand side with one dimension less may mean a stack of vectors.
_AMBIGUOUS = spellings("solve")

_SOLVERS = dict.fromkeys(spellings("solve_triangular", "solve"), ("A", "B")) | dict.fromkeys(
    spellings("cholesky_solve"), ("input", "input2")
)

RULES = dict.fromkeys(_SOLVERS, solve) | dict.fromkeys(spellings("cdist"), cdist)

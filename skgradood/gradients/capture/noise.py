"""Random numbers that a row receives whatever its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.functions import (
    DIFFERENTIABLE_DRAWS,
    DRAWS_LIKE,
    DRAWS_OF_A_SIZE,
    is_in_place,
)

# An axis that is known, one that is not, or none because the tensor is no data.
AxisOf = Callable[[Tensor], "BatchAxis | None"]


class UnknownAxisError(Exception):
    """Raised by a function that tells axes, of data in which samples cannot be told apart."""


@dataclass
class _Draw:
    """A call that draws numbers.

    Attributes
    ----------
    shape : tuple of int
        Of what is drawn for the batch, as far as samples lie in it.
    row : callable
        ``(shape, tensors, generator)`` to what one row draws: in its share of that shape, or of
        its slices of the tensors.
    tensors : list of Tensor
        Of whose numbers the draw depends.
    target : Tensor or None
        What the numbers are written into.
    """

    shape: tuple[int, ...]
    row: Callable[[tuple[int, ...], list[Tensor], torch.Generator], Tensor]
    tensors: list[Tensor]
    target: Tensor | None = None


class RowNoise:
    """Replaces a draw for a whole batch by one draw a row, from the row's own generator.

    The result equals what each row would draw in a batch of its own.

    Parameters
    ----------
    X : Tensor of shape (n, ...)
        The batch.
    seeds_of : callable
        From the batch to a seed for every row; called when the first number is drawn.
    group_size : int, default=1
        Samples in each row, which the model sees one after another.
    """

    def __init__(
        self, X: Tensor, seeds_of: Callable[[Tensor], list[int]], *, group_size: int = 1
    ) -> None:
        self.X = X
        self.seeds_of = seeds_of
        self.group_size = group_size
        self.generator = seeded_generator(X.device, 0)
        self._rows: dict[bool, list[torch.Generator]] = {}

    def draw(
        self, function: Callable, args: tuple, kwargs: dict[str, Any], axis_of: AxisOf | None = None
    ) -> tuple[Tensor, BatchAxis] | None:
        """What the rows draw and how they lie in it; None if that cannot be told.

        Parameters
        ----------
        function, args, kwargs
            The call; one of ``functions.DRAWS``.
        axis_of : callable or None, default=None
            Tells the axis of a tensor, None for one that is no data. By default, and for tensors
            that are none, samples lie along the first dimension, or along the only one that has
            their number.
        """
        options = dict(kwargs)
        generator = options.pop("generator", None)
        if generator not in (None, self.generator) or "out" in options:
            return None
        draw = _taken_apart(function, args, options)
        if draw is None:
            return None
        try:
            axis = self._axis(draw, axis_of or (lambda tensor: None))
        except UnknownAxisError:
            return None
        if axis is None or axis.owners is not None:
            return None
        with torch.no_grad():
            drawn = self._by_rows(draw, axis, explicit=generator is not None)
            if draw.target is not None:
                drawn = draw.target.copy_(drawn)
        return drawn, axis

    def _axis(self, draw: _Draw, axis_of: AxisOf) -> BatchAxis | None:
        """Where the samples lie in what is drawn."""
        given = draw.tensors if draw.target is None else [draw.target, *draw.tensors]
        known: set[BatchAxis] = set()
        for tensor in given:
            axis = axis_of(tensor)
            if axis is not None:
                known.add(axis.at(axis.dim + len(draw.shape) - tensor.ndim))
        if known:
            return known.pop() if len(known) == 1 else None
        n, seen = len(self.X), len(self.X) * self.group_size
        dims = [dim for dim, size in enumerate(draw.shape) if size == seen]
        likely = [BatchAxis(dim, n, inner=self.group_size) for dim in dims]
        if dims[:1] == [0]:
            return likely[0]
        if draw.shape and draw.shape[0] and draw.shape[0] % seen == 0:
            likely.append(BatchAxis(0, n, inner=draw.shape[0] // n))
        return likely[0] if len(likely) == 1 else None

    def _by_rows(self, draw: _Draw, axis: BatchAxis, *, explicit: bool) -> Tensor:
        share = list(draw.shape)
        share[axis.dim] = axis.outer * axis.inner
        rows = []
        for i, generator in enumerate(self._rows_for(explicit=explicit)):
            own = [_slices(tensor, axis, len(share), i) for tensor in draw.tensors]
            drawn = draw.row(tuple(share), own, generator)
            rows.append(drawn.unflatten(axis.dim, (axis.outer, axis.inner)))
        return torch.stack(rows, axis.dim + 1).flatten(axis.dim, axis.dim + 2)

    def _rows_for(self, *, explicit: bool) -> list[torch.Generator]:
        # The generator passed on and torch's global one are two streams of the same seed.
        if explicit not in self._rows:
            device = self.generator.device
            self._rows[explicit] = [
                seeded_generator(device, seed) for seed in self.seeds_of(self.X)
            ]
        return self._rows[explicit]


def seeded_generator(device: torch.device, seed: int) -> torch.Generator:
    """A generator of a device's."""
    return torch.Generator(device=device).manual_seed(seed)


def _slices(tensor: Tensor, axis: BatchAxis, ndim: int, sample: int) -> Tensor:
    """A sample's slices of a tensor that broadcasts to ``ndim`` dimensions."""
    dim = axis.dim - (ndim - tensor.ndim)
    if dim < 0 or tensor.shape[dim] != axis.size:
        return tensor
    split = tensor.unflatten(dim, (axis.outer, axis.n, axis.inner))
    return split.select(dim + 1, sample).flatten(dim, dim + 1).contiguous()


def _taken_apart(function: Callable, args: tuple, options: dict[str, Any]) -> _Draw | None:
    if function in DRAWS_LIKE:
        like = args[0]
        options.pop("memory_format", None)
        options.setdefault("dtype", like.dtype)
        options.setdefault("device", like.device)
        return _of_a_size(DRAWS_LIKE[function], tuple(like.shape), args[1:], options, [like])
    if function in DRAWS_OF_A_SIZE or not any(isinstance(a, Tensor) for a in args):
        size, bounds = _size_of(function, args, options)
        return None if size is None else _of_a_size(function, size, bounds, options)
    if is_in_place(function):
        return _in_place(function, args, options)
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    if function in DIFFERENTIABLE_DRAWS and any(tensor.requires_grad for tensor in tensors):
        return None
    shape = tuple(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))
    return _Draw(
        shape,
        lambda share, own, generator: function(
            *_replaced(args, own), generator=generator, **options
        ),
        tensors,
    )


def _size_of(
    function: Callable, args: tuple, options: dict[str, Any]
) -> tuple[tuple[int, ...] | None, Sequence[Any]]:
    """The size that is asked for, taken from the options or the arguments; and the other ones."""
    if "size" in options:
        return tuple(options.pop("size")), args
    if args and isinstance(args[-1], (tuple, list)):
        return tuple(args[-1]), args[:-1]
    are_sizes = function in (torch.randn, torch.rand) and all(isinstance(a, int) for a in args)
    return (args, ()) if are_sizes and args else (None, ())


def _of_a_size(
    function: Callable,
    size: tuple[int, ...],
    bounds: Sequence[Any],
    options: dict[str, Any],
    like: Sequence[Tensor] = (),
) -> _Draw:
    return _Draw(
        size,
        lambda share, own, generator: function(*bounds, share, generator=generator, **options),
        list(like),
    )


def _in_place(function: Callable, args: tuple, options: dict[str, Any]) -> _Draw | None:
    target, *rest = args
    if target.requires_grad:
        return None

    def row(share: tuple[int, ...], own: list[Tensor], generator: torch.Generator) -> Tensor:
        empty = torch.empty(share, dtype=target.dtype, device=target.device)
        return function(empty, *_replaced(tuple(rest), own), generator=generator, **options)

    tensors = [argument for argument in rest if isinstance(argument, Tensor)]
    return _Draw(tuple(target.shape), row, tensors, target)


def _replaced(args: tuple, tensors: list[Tensor]) -> list[Any]:
    """Arguments with other tensors in the places of theirs."""
    others = iter(tensors)
    return [next(others) if isinstance(argument, Tensor) else argument for argument in args]

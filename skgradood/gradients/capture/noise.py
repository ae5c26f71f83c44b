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
    DRAWS_OF_CLASSES,
    is_in_place,
)

# The axis of data, None for a tensor that is none; raises `UnknownAxisError`.
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
        On whose numbers the draw depends.
    template : Tensor or None
        In the order in which this lies in memory the numbers are drawn; ``row`` gets an empty
        tensor that lies as a row's alone would, before the slices.
    target : Tensor or None
        What the numbers are written into.
    n_last : int
        Dimensions at the end in which no samples lie, as that of the classes of a multinomial draw.
    """

    shape: tuple[int, ...]
    row: Callable[[tuple[int, ...], list[Tensor], torch.Generator], Tensor]
    tensors: list[Tensor]
    template: Tensor | None = None
    target: Tensor | None = None
    n_last: int = 0


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
            if drawn is not None and draw.target is not None:
                drawn = draw.target.copy_(drawn)
        return None if drawn is None else (drawn, axis)

    def _axis(self, draw: _Draw, axis_of: AxisOf) -> BatchAxis | None:
        """Where the samples lie in what is drawn."""
        shape = draw.shape[: len(draw.shape) - draw.n_last]
        known: set[BatchAxis] = set()
        templates = [] if draw.template is None else [draw.template]
        for tensor in (*templates, *draw.tensors):
            axis = axis_of(tensor)
            if axis is not None:
                known.add(axis.at(axis.dim + len(draw.shape) - tensor.ndim))
        if known:
            axis = known.pop()
            return axis if not known and axis.dim < len(shape) else None
        n, seen = len(self.X), len(self.X) * self.group_size
        dims = [dim for dim, size in enumerate(shape) if size == seen]
        likely = [BatchAxis(dim, n, inner=self.group_size) for dim in dims]
        if dims[:1] == [0]:
            return likely[0]
        if shape and shape[0] and shape[0] % seen == 0:
            likely.append(BatchAxis(0, n, inner=shape[0] // n))
        return likely[0] if len(likely) == 1 else None

    def _by_rows(self, draw: _Draw, axis: BatchAxis, *, explicit: bool) -> Tensor | None:
        share = list(draw.shape)
        share[axis.dim] = axis.outer * axis.inner
        empty = [] if draw.template is None else [_empty_row(draw.template, axis)]
        rows = []
        for i, generator in enumerate(self._rows_for(explicit=explicit)):
            own = [*empty, *(_slices(tensor, axis, len(share), i) for tensor in draw.tensors)]
            drawn = draw.row(tuple(share), own, generator)
            if draw.target is not None:
                drawn = drawn.clone()  # the next row is drawn into the same memory
            if drawn.shape[: axis.dim + 1] != tuple(share[: axis.dim + 1]):
                return None
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


def _empty_row(template: Tensor, axis: BatchAxis) -> Tensor:
    """An empty tensor that lies in memory as a template would if it had one sample only."""
    shape, stride = list(template.shape), list(template.stride())
    shape[axis.dim] //= axis.n
    within = stride[axis.dim] * axis.inner
    stride = [step // axis.n if step > within else step for step in stride]
    return torch.empty_strided(shape, stride, dtype=template.dtype, device=template.device)


def _slices(tensor: Tensor, axis: BatchAxis, ndim: int, sample: int) -> Tensor:
    """A sample's slices of a tensor that broadcasts to ``ndim`` dimensions."""
    dim = axis.dim - (ndim - tensor.ndim)
    if dim < 0 or tensor.shape[dim] != axis.size:
        return tensor
    split = tensor.unflatten(dim, (axis.outer, axis.n, axis.inner))
    return split.select(dim + 1, sample).flatten(dim, dim + 1).contiguous()


def _taken_apart(function: Callable, args: tuple, options: dict[str, Any]) -> _Draw | None:
    if function in DRAWS_LIKE:
        return _like(DRAWS_LIKE[function], args, options)
    if function in DRAWS_OF_A_SIZE or not any(isinstance(a, Tensor) for a in args):
        size, bounds = _size_of(function, args, options)
        return None if size is None else _of_a_size(function, size, bounds, options)
    if is_in_place(function):
        return _in_place(function, args, options)
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    if function in DIFFERENTIABLE_DRAWS and any(tensor.requires_grad for tensor in tensors):
        return None

    def row(share: tuple[int, ...], own: list[Tensor], generator: torch.Generator) -> Tensor:
        return function(*_replaced(args, own), generator=generator, **options)

    shape = tuple(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))
    return _Draw(shape, row, tensors, n_last=1 if function in DRAWS_OF_CLASSES else 0)


def _like(fill: Callable, args: tuple, options: dict[str, Any]) -> _Draw:
    """What is drawn in the shape of a tensor, and in the order in which that lies in memory."""
    like, *bounds = args
    bounds += [options.pop(name) for name in ("low", "high") if name in options]
    if len(bounds) == 1:
        bounds = [0, *bounds]

    def row(share: tuple[int, ...], own: list[Tensor], generator: torch.Generator) -> Tensor:
        return fill(torch.empty_like(own[0], **options), *bounds, generator=generator)

    return _Draw(tuple(like.shape), row, [], template=like)


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
    function: Callable, size: tuple[int, ...], bounds: Sequence[Any], options: dict[str, Any]
) -> _Draw:
    def row(share: tuple[int, ...], own: list[Tensor], generator: torch.Generator) -> Tensor:
        return function(*bounds, size=share, generator=generator, **options)

    return _Draw(size, row, [])


def _in_place(function: Callable, args: tuple, options: dict[str, Any]) -> _Draw | None:
    target, *rest = args
    if target.requires_grad:
        return None

    def row(share: tuple[int, ...], own: list[Tensor], generator: torch.Generator) -> Tensor:
        empty, *others = own
        return function(empty, *_replaced(tuple(rest), others), generator=generator, **options)

    tensors = [argument for argument in rest if isinstance(argument, Tensor)]
    return _Draw(tuple(target.shape), row, tensors, template=target, target=target)


def _replaced(args: tuple, tensors: list[Tensor]) -> list[Any]:
    """Arguments with other tensors in the places of theirs."""
    others = iter(tensors)
    return [next(others) if isinstance(argument, Tensor) else argument for argument in args]

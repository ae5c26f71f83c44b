"""Data picked from, or put at, places that are themselves numbers of tensors.

Which samples meet depends on the numbers, so it is looked at in every batch, on shadows: tensors
that hold one plus the sample of each element, and zero where it belongs to none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skgradood.gradients.capture.axes import BatchAxis, axis_of_shadow
from skgradood.gradients.capture.functions import (
    ALONG_A_DIMENSION,
    MASKED_COPIES,
    SCATTERS,
    SORTS,
    SUMS_AT_PLACES,
    spellings,
)

# Where samples lie is no secret of the device: looking at it there would mean to wait.
CPU = torch.device("cpu")

_LIKE_GATHER = spellings("gather") | SCATTERS
_SUMMING_SCATTERS = spellings("scatter_add", "scatter_reduce")
_INTEGERS = frozenset({torch.int16, torch.int32, torch.int64})

Axes = dict[int, BatchAxis]


@dataclass(frozen=True)
class Move:
    """A call that picks elements or puts some: ``function(tensor, *places, value)``.

    Attributes
    ----------
    function : callable
        Which it is.
    args, kwargs
        What it is called with.
    axes : dict of int to BatchAxis
        The axes of the data among its arguments, by identity.
    n : int
        Samples in the batch.
    """

    function: Callable
    args: tuple
    kwargs: dict[str, Any]
    axes: Axes
    n: int

    def argument(self, place: int, *names: str) -> Any:
        """An argument by its place or one of its names."""
        if place < len(self.args):
            return self.args[place]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    @property
    def target(self) -> Tensor:
        """From which is picked, or into which is put."""
        return self.argument(0, "input", "self")

    @cached_property
    def index(self) -> tuple:
        """The parts of the index, of a function that has one for the dimensions in turn."""
        if self.function not in ALONG_A_DIMENSION:
            given = self.argument(1, "indices")
            return tuple(given) if isinstance(given, (tuple, list)) else (given,)
        dim = self.argument(1, "dim") % self.target.ndim
        return (*[slice(None)] * dim, self.argument(2, "index"))

    @cached_property
    def n_whole(self) -> int:
        """How many dimensions at the end are moved as a whole, and hold parts of one sample."""
        if self.function in _LIKE_GATHER or any(part is Ellipsis for part in self.index):
            return 0
        named = sum(_n_dims(part) for part in self.index)
        of_data = [t.ndim - self.axes[id(t)].dim - 1 for t in self._values if id(t) in self.axes]
        return max(0, min([self.target.ndim - named, *of_data]))

    @property
    def value(self) -> Any:
        """What is written."""
        is_along = self.function in ALONG_A_DIMENSION
        return self.argument(3 if is_along else 2, "source", "src", "values", "tensor", "value")

    @property
    def _values(self) -> list[Tensor]:
        return [t for t in (self.target, self.value) if isinstance(t, Tensor)]

    def shadow(self, tensor: Tensor) -> Tensor:
        """The shadow of a tensor of values, with a single place along whole dimensions."""
        shape = self.thin(tensor.shape)
        axis = self.axes.get(id(tensor))
        return torch.zeros(shape) if axis is None else axis.shadow(shape, CPU)

    def thin(self, shape: torch.Size) -> torch.Size:
        """A shape with a size of one for each whole dimension."""
        n_kept = max(0, len(shape) - self.n_whole)
        return torch.Size((*shape[:n_kept], *[min(1, size) for size in shape[n_kept:]]))


class _Places(NamedTuple):
    """Reads and writes a shadow at the places of a move; and the shadow of the places."""

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor, Tensor], Any]
    owners: Tensor


def is_place(tensor: Any) -> bool:
    """Whether something is a tensor of places; a uint8 is a mask in torch's indexing."""
    return isinstance(tensor, Tensor) and tensor.dtype in _INTEGERS


def shadow_of(tensor: Tensor, axes: Axes) -> Tensor:
    """The shadow of a tensor, all zero where it is no data."""
    axis = axes.get(id(tensor))
    if axis is None:
        return torch.zeros(tensor.shape, dtype=torch.float32)
    return axis.shadow(tensor.shape, CPU)


def axis_of_positions(tensor: Tensor, axis: BatchAxis, n: int) -> BatchAxis | None:
    """The axis of the places at which data are not zero, in the order in which they lie."""
    found = axis.shadow(tensor.shape, CPU)[tensor.detach().to(CPU) != 0]
    return axis_of_shadow(found, n)


def axis_of_sorted(move: Move, order: Tensor) -> BatchAxis | None:
    """The axis of values sorted along the samples: each stays its sample's.

    ``order`` tells where they were before.
    """
    tensor = move.target
    moved = shadow_of(tensor, move.axes).gather(_dim_of_sort(move), order.to(CPU))
    return axis_of_shadow(moved, move.n)


def axis_of_packed(move: Move) -> BatchAxis | None:
    """The axis of sequences that are packed by their lengths, or unpacked."""
    target, told, *rest = move.args
    moved, _ = move.function(shadow_of(target, move.axes), told.to(CPU), *rest)
    return axis_of_shadow(moved, move.n)


def sorts_samples(move: Move) -> bool:
    """Whether a function brings the samples of data into the order of some numbers."""
    if move.function not in SORTS or id(move.target) not in move.axes:
        return False
    return _dim_of_sort(move) % move.target.ndim == move.axes[id(move.target)].dim


def _dim_of_sort(move: Move) -> int:
    dims = [argument for argument in move.args[1:] if type(argument) is int]
    return move.kwargs.get("dim", dims[0] if dims else -1)


def axis_of_picked(move: Move, output: Tensor) -> BatchAxis | None:
    """The axis of data picked; None where a place lies in another sample than its own."""
    places = _places_of(move)
    if places is None:
        return None
    belongs = _united(places.read(move.shadow(move.target)), places.owners)
    if belongs is None or belongs.shape != move.thin(output.shape):
        return None
    return axis_of_shadow(belongs, move.n)


def axis_after_placing(move: Move) -> BatchAxis | None:
    """The axis of a tensor into which data are written, or at the places of data."""
    if move.function in MASKED_COPIES:
        return _axis_of_masked_copy(move)
    places = _places_of(move)
    if places is None:
        return None
    target = move.target
    before = move.shadow(target)
    there = places.read(before)
    written = _written(move, there.shape, places.owners)
    if written is None or (_adds(move) and _united(there, written) is None):
        return None
    if id(target) not in move.axes and written.numel() and not written.any():
        return None  # constants, at places of several samples
    after = before.clone()
    places.write(after, written)
    if not torch.equal(places.read(after), written):
        return None  # two samples write to one place
    return _axis_with_gaps(after, move.axes.get(id(target)), move.n)


def _axis_of_masked_copy(move: Move) -> BatchAxis | None:
    """The axis after ``target.masked_scatter(mask, source)``, which takes the source in turn."""
    target = move.target
    mask, source = move.argument(1, "mask"), move.argument(2, "source")
    shape = torch.broadcast_shapes(target.shape, mask.shape)
    is_there = mask.to(CPU).expand(shape)
    taken = shadow_of(source, move.axes).flatten()[: int(is_there.sum())]
    written = _united(taken, shadow_of(mask, move.axes).expand(shape)[is_there])
    if written is None:
        return None
    after = shadow_of(target, move.axes).expand(shape).masked_scatter(is_there, written)
    before = move.axes.get(id(target))
    if before is not None:
        before = before.at(before.dim + len(shape) - target.ndim)
    return _axis_with_gaps(after, before, move.n)


def _adds(move: Move) -> bool:
    return move.function in SUMS_AT_PLACES | _SUMMING_SCATTERS or "reduce" in move.kwargs


def _written(move: Move, shape: torch.Size, owners: Tensor) -> Tensor | None:
    """To which samples what is written belongs, by the values and by the places."""
    value = move.value
    if isinstance(value, Tensor) and value.ndim:
        own = move.shadow(value)
        if move.function in SCATTERS:  # of a longer source the beginning is used
            own = own[tuple(slice(size) for size in shape)]
        united = _united(own, owners)
    else:
        united = owners
    if united is None or torch.broadcast_shapes(united.shape, shape) != shape:
        return None
    return united.expand(shape)


def _axis_with_gaps(shadow: Tensor, before: BatchAxis | None, n: int) -> BatchAxis | None:
    """The axis of a shadow in which an element of no sample may lie among those of any.

    Data keep the axis that they had ``before``: others may look at the same memory.
    """
    if before is None and shadow.all():
        return axis_of_shadow(shadow, n)
    for axis in _even_axes(shadow.shape, n) if before is None else iter((before,)):
        if ((shadow == axis.shadow(shadow.shape, CPU)) | (shadow == 0)).all():
            return axis
    return None


def _even_axes(shape: torch.Size, n: int) -> Iterator[BatchAxis]:
    for dim, size in enumerate(shape):
        if size and size % n == 0:
            yield BatchAxis(dim, n, inner=size // n)
            yield BatchAxis(dim, n, outer=size // n)


def _united(a: Tensor, b: Tensor) -> Tensor | None:
    """Two shadows as one; None where an element would belong to two samples."""
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError:
        return None
    if ((a != b) & (a != 0) & (b != 0)).any():
        return None
    return torch.maximum(a, b)


def _places_of(move: Move) -> _Places | None:
    """What a move picks from or writes to; None where its index is none of known kinds."""
    if move.function in _LIKE_GATHER:
        dim, along = move.argument(1, "dim"), move.argument(2, "index")
        if not isinstance(dim, int) or not is_place(along):
            return None
        index = along.to(CPU)
        return _Places(
            lambda shadow: shadow.gather(dim, index),
            lambda shadow, written: shadow.scatter_(dim, index, written),
            shadow_of(along, move.axes),
        )
    parts = _by_numbers(move.index, move.axes)
    owners = None if parts is None else _owners_of_parts(move.thin(move.target.shape), parts)
    if parts is None or owners is None:
        return None
    places = tuple(part.places if isinstance(part, _Part) else part for part in parts)
    return _Places(
        lambda shadow: shadow[places],
        lambda shadow, written: shadow.__setitem__(places, written),
        owners,
    )


class _Part(NamedTuple):
    """Numbers in an index, and their shadow."""

    places: Tensor
    owners: Tensor


def _n_dims(part: Any) -> int:
    """How many dimensions a part of an index stands for."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1


def _by_numbers(parts: tuple, axes: Axes) -> list[Any] | None:
    """The parts of an index with numbers in the place of masks; None if one is of another kind."""
    found: list[Any] = []
    for part in parts:
        if is_place(part) and part.ndim == 0 and id(part) not in axes:
            found.append(int(part))  # as torch takes it: not as one more dimension
        elif is_place(part):
            found.append(_Part(part.to(CPU), shadow_of(part, axes)))
        elif isinstance(part, Tensor) and part.dtype == torch.bool:
            mask = part.to(CPU)
            owners = shadow_of(part, axes)[mask]
            found += [_Part(places, owners) for places in mask.nonzero(as_tuple=True)]
        elif part is None or part is Ellipsis or type(part) in (int, slice):
            found.append(part)
        else:
            return None
    return found


def _owners_of_parts(shape: torch.Size, parts: list[Any]) -> Tensor | None:
    """The shadow of an index's places, laid out as what is picked from a shape."""
    numbers = [part for part in parts if isinstance(part, _Part)]
    if not numbers:
        return torch.zeros(())
    owners = numbers[0].owners
    for part in numbers[1:]:
        united = _united(owners, part.owners)
        if united is None:
            return None
        owners = united
    # What the index picks from a tensor with these owners along the first of its dimensions.
    first, *others = _dims_of_numbers(len(shape), parts)
    layout = [1] * len(shape)
    layout[first] = owners.numel()
    sizes = [layout[d] if d in (first, *others) else size for d, size in enumerate(shape)]
    along = iter([torch.arange(owners.numel()).reshape(owners.shape)])
    zeros = torch.zeros(owners.shape, dtype=torch.int64)
    same = tuple(next(along, zeros) if isinstance(part, _Part) else part for part in parts)
    return owners.reshape(layout).expand(sizes)[same]


def _dims_of_numbers(ndim: int, parts: list[Any]) -> list[int]:
    """The dimensions from which the numbers in an index pick."""
    n_named = sum(_n_dims(part) for part in parts)
    dims, dim = [], 0
    for part in parts:
        if isinstance(part, _Part):
            dims.append(dim)
        dim += ndim - n_named if part is Ellipsis else _n_dims(part)
    return dims

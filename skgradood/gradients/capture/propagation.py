"""Follows the batch dimension through functions that no parameter takes part in."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.functions import (
    CHOICES,
    CREATIONS,
    ELEMENTWISE,
    ELEMENTWISE_OF_ONE,
    IN_THE_SHAPE_OF,
    INDEXING,
    MASKED_COPIES,
    MOVES,
    NORMALISATIONS,
    PACKINGS,
    PICKS,
    PLACINGS,
    POSITIONS,
    REDUCTIONS,
    SORTS,
)
from skgradood.gradients.capture.places import (
    Axes,
    Move,
    axis_after_placing,
    axis_of_packed,
    axis_of_picked,
    axis_of_positions,
    axis_of_sorted,
    is_place,
    sorts_samples,
)
from skgradood.gradients.capture.probing import axes_by_probing
from skgradood.gradients.capture.shadows import axes_by_shadow, axis_after_assignment
from skgradood.gradients.capture.tensor_table import TensorTable

_KEEPING = ELEMENTWISE | ELEMENTWISE_OF_ONE | CREATIONS
# Over many classes their input is the largest tensor of a model, too large to try them on copies.
_LOSSES = frozenset({F.cross_entropy, F.nll_loss})

# Made-up numbers, on which they would be tried, may happen to be in order.
_BY_NUMBERS_FIRST = MASKED_COPIES | SORTS

_NESTED = (tuple, list, dict)
_INDICES = frozenset({torch.int32, torch.int64})
# Arguments that are equal to nothing of another type, and can be told apart as they are.
_PLAIN = frozenset({int, str, type(None), torch.dtype})


class AxisPropagation:
    """Finds the batch axis of a function's outputs from those of its inputs.

    Functions of elements keep the axis, reductions drop dimensions. Functions that only move
    elements are applied to a *shadow* of their input, a tensor that holds the sample of every
    element, and the axis is read off the result. Everything else is *probed*: called with some
    samples in the place of others, it must give the outputs of those samples, wherever they then
    lie. A function that mixes samples has no axis. What depends on shapes alone is remembered.

    Attributes
    ----------
    reads_several : bool
        Whether integers that come from several samples, as from a sort of them all, have told
        what is picked of which. Each element is a sample's own all the same, but which are picked
        may then depend on others.
    leaves_out : bool
        Whether some slices of samples have been left out by their places in the batch, or by such
        integers, and by nothing that the samples themselves say.
    """

    def __init__(self) -> None:
        self.reads_several = False
        self.leaves_out = False
        self._cut_out: TensorTable[bool] = TensorTable()
        self._known: dict[tuple, list[BatchAxis | None]] = {}

    def __call__(
        self,
        function: Callable,
        args: tuple,
        kwargs: dict[str, Any],
        inputs: list[tuple[Tensor, BatchAxis | None]],
        outputs: list[Tensor],
        n: int,
    ) -> list[BatchAxis | None]:
        """The axis of every output; None where it is unknown."""
        if any(axis is None for _, axis in inputs):
            axes = {id(tensor): axis for tensor, axis in inputs if axis is not None}
            return self._of_several(Move(function, args, kwargs, axes, n), inputs, outputs)
        known = cast("list[tuple[Tensor, BatchAxis]]", inputs)
        if function in POSITIONS or (function in CHOICES and len(args) + len(kwargs) == 1):
            return [axis_of_positions(*known[0], n)] * len(outputs)
        if function in _KEEPING:
            return [_kept(known, output) for output in outputs]
        if function in REDUCTIONS and len(known) == 1:
            axis = _reduced(known[0], args, kwargs, outputs[0])
            return [axis] * len(outputs)
        if function in NORMALISATIONS and _is_along_another(known[0], args, kwargs):
            return [known[0][1]]
        if function in _LOSSES and _is_row_by_row(args, kwargs, known):
            return [known[0][1]]
        if function in IN_THE_SHAPE_OF and args[0] is not known[0][0]:  # a constant
            return [known[0][1]]
        axes = {id(tensor): axis for tensor, axis in known}
        if function in _BY_NUMBERS_FIRST:
            numbered = self._by_numbers(Move(function, args, kwargs, axes, n), outputs)
            if numbered is not None:
                return numbered
        key = _shape_key(function, args, kwargs, axes)
        if key is not None and key in self._known:
            found = self._known[key]
        elif function in MOVES:
            found = axes_by_shadow(function, args, kwargs, axes, outputs, n)
        else:
            found = axes_by_probing(function, args, kwargs, axes, outputs)
        if key is not None:
            self._known[key] = found
        if any(axis is None for axis in found):
            found = self._by_numbers(Move(function, args, kwargs, axes, n), outputs) or found
        if function in MOVES and (_is_ragged(found) or _is_ragged(axes.values())):
            move = Move(function, args, kwargs, axes, n)
            self._note_what_is_left_out(move, found, outputs)
        return found

    def _of_several(
        self,
        move: Move,
        inputs: list[tuple[Tensor, BatchAxis | None]],
        outputs: list[Tensor],
    ) -> list[BatchAxis | None]:
        """Where some data have no axis: known if these are integers that tell a place."""
        others = [tensor for tensor, axis in inputs if axis is None]
        values = (move.target, move.value)
        if not move.axes or not all(
            is_place(t) and not any(t is v for v in values) for t in others
        ):
            return [None] * len(outputs)
        found = self._by_numbers(move, outputs) or [None] * len(outputs)
        if move.function in PICKS and (_is_ragged(found) or _is_ragged(move.axes.values())):
            self._note_what_is_left_out(move, found, outputs)
        self.reads_several = self.reads_several or any(axis is not None for axis in found)
        return found

    def _by_numbers(self, move: Move, outputs: list[Tensor]) -> list[BatchAxis | None] | None:
        """The axes where they depend on the numbers in a tensor, in this batch; None elsewhere."""
        if move.function in PICKS:
            return [axis_of_picked(move, outputs[0])]
        if move.function in PLACINGS:
            return [axis_after_placing(move)]
        if move.function in PACKINGS:  # the lengths are those of several samples
            self.reads_several = True
            return [axis_of_packed(move), None]
        if sorts_samples(move):  # what was where is a matter of several samples
            self.reads_several = True
            return [axis_of_sorted(move, outputs[1]), None]
        return None

    def start(self) -> None:
        """A batch begins."""
        self._cut_out = TensorTable()

    def look_at(self, data: list[tuple[Tensor, BatchAxis | None]]) -> None:
        """Something is computed of data: of what is cut out of a batch only the shape may count."""
        if len(self._cut_out) and any(tensor in self._cut_out for tensor, _ in data):
            self.leaves_out = True

    def _note_what_is_left_out(
        self, move: Move, found: list[BatchAxis | None], outputs: list[Tensor]
    ) -> None:
        """Note outputs that lack some slices of a sample, if it does not say itself which."""
        target = move.target
        source = move.axes.get(id(target)) if isinstance(target, Tensor) else None
        if source is None or self.leaves_out:
            return
        by_own_numbers = any(id(t) in move.axes for t in tensors_in(*move.args[1:], move.kwargs))
        if move.function in INDEXING and by_own_numbers:
            return
        before = source.slices_by_sample(move.n)
        for axis, output in zip(found, outputs, strict=True):
            if axis is not None and (axis.slices_by_sample(move.n) < before).any():
                self._cut_out[output] = True

    def after_assignment(
        self, args: tuple, inputs: list[tuple[Tensor, BatchAxis | None]], n: int
    ) -> BatchAxis | None:
        """The axis of ``target`` after ``target[index] = value``, for those three arguments."""
        target, index, value = args
        axes = {id(tensor): axis for tensor, axis in inputs if axis is not None}
        others = [tensor for tensor, axis in inputs if axis is None]
        if others:
            are_places = all(is_place(t) and t is not target and t is not value for t in others)
            found = None
        else:
            are_places = any(id(tensor) in axes for tensor in tensors_in(index))
            found = self._after_plain_assignment(args, axes, n)
        if found is None and are_places:
            move = Move(torch.Tensor.__setitem__, args, {}, axes, n)
            found = axis_after_placing(move)
            self.reads_several = self.reads_several or (bool(others) and found is not None)
        return found

    def _after_plain_assignment(self, args: tuple, axes: Axes, n: int) -> BatchAxis | None:
        target, index, value = args
        key = _shape_key(torch.Tensor.__setitem__, args, {}, axes)
        if key is None or tensors_in(index):
            return axis_after_assignment(target, index, value, axes, n)
        if key not in self._known:
            self._known[key] = [axis_after_assignment(target, index, value, axes, n)]
        return self._known[key][0]


def _is_ragged(axes: Iterable[BatchAxis | None]) -> bool:
    """Whether samples have different numbers of slices along some axis."""
    return any(axis is not None and axis.owners is not None for axis in axes)


def tensors_in(*trees: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    found: list[Tensor] = []
    for tree in trees:
        if isinstance(tree, Tensor):
            found.append(tree)
        elif isinstance(tree, _NESTED):
            _gather(tree, found)
    return found


def _gather(tree: Any, found: list[Tensor]) -> None:
    for branch in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(branch, Tensor):
            found.append(branch)
        elif isinstance(branch, _NESTED):
            _gather(branch, found)


def _shape_key(function: Callable, args: tuple, kwargs: dict[str, Any], axes: Axes) -> tuple | None:
    """What the axes depend on, or None if that is the values of a tensor, as indices are."""
    tensors = tensors_in(args, kwargs)
    if function in INDEXING and len(tensors) > 1:
        return None
    if any(axis.owners is not None for axis in axes.values()):
        return None
    if any(tensor.dtype in _INDICES and id(tensor) not in axes for tensor in tensors):
        return None
    key: list[Any] = [function]
    return tuple(key) if _describe(args, axes, key) and _describe(kwargs, axes, key) else None


def _describe(tree: Any, axes: Axes, key: list[Any]) -> bool:
    """Append to a key what nested arguments look like; False where values may matter, too."""
    if isinstance(tree, Tensor):
        key += (tree.shape, tree.dtype, axes.get(id(tree)))
        return True
    if isinstance(tree, np.ndarray):
        return False
    if isinstance(tree, dict):
        key += (dict, *tree)
        tree = tuple(tree.values())
    elif isinstance(tree, slice):
        key.append(slice)
        tree = (tree.start, tree.stop, tree.step)
        if any(isinstance(end, Tensor) for end in tree):
            return False
    if isinstance(tree, (tuple, list)):
        key += (type(tree), len(tree))
        return all(_describe(branch, axes, key) for branch in tree)
    # Equal numbers of different types are not the same argument.
    key.append(tree if tree.__class__ in _PLAIN else (tree.__class__, repr(tree)))
    return True


def _is_row_by_row(
    args: tuple, kwargs: dict[str, Any], inputs: list[tuple[Tensor, BatchAxis]]
) -> bool:
    """Whether a loss gives a value to every row: (N, C, ...) and targets (N, ...) to (N, ...)."""
    axes = {axis for _, axis in inputs}
    return (
        kwargs.get("reduction") == "none"
        and len(args) == 2
        and args[0].ndim >= 2
        and len(axes) == 1
        and next(iter(axes)).dim == 0
        and all(any(tensor is a for a in args) for tensor, _ in inputs)
        and args[1].shape[:1] == args[0].shape[:1]
    )


def _is_along_another(data: tuple[Tensor, BatchAxis], args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a function along a dimension, its second argument, leaves the samples alone."""
    tensor, axis = data
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(dim, int) and tensor.ndim > 0 and dim % tensor.ndim != axis.dim


def _reduced(
    data: tuple[Tensor, BatchAxis], args: tuple, kwargs: dict[str, Any], output: Tensor
) -> BatchAxis | None:
    tensor, axis = data
    dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if dims is None or isinstance(dims, (bool, Tensor, torch.dtype)):
        return None
    dims = tuple(dims) if isinstance(dims, (tuple, list)) else (operator.index(dims),)
    gone = {d % tensor.ndim for d in dims} if dims else set(range(tensor.ndim))
    if axis.dim in gone:
        return None
    kept = output.ndim == tensor.ndim
    return axis if kept else axis.at(axis.dim - sum(d < axis.dim for d in gone))


def _kept(inputs: list[tuple[Tensor, BatchAxis]], output: Tensor) -> BatchAxis | None:
    """The axis of what is broadcast."""
    kept: BatchAxis | None = None
    ndim = output.ndim
    for tensor, own in inputs:
        axis = own.at(own.dim + ndim - tensor.ndim)
        if kept is not None and axis is not kept and axis != kept:
            return None
        kept = axis
    return kept if kept is not None and kept.dim >= 0 and kept.matches(output) else None

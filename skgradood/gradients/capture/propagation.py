"""Follows the batch dimension through functions that no parameter takes part in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from skgradood.gradients.capture.axes import BatchAxis, axis_of_shadow
from skgradood.gradients.capture.functions import (
    ELEMENTWISE,
    INDEXING,
    MATRIX_PRODUCTS,
    MOVES,
    PADDING,
    REDUCTIONS,
)


class AxisPropagation:
    """Finds the batch axis of a function's outputs from those of its inputs.

    Functions that only move elements are applied to a *shadow* of their input, a tensor that
    holds the sample of every element, and the axis is read off the result; since that depends on
    shapes alone, it is remembered. Reductions drop dimensions. Everything else keeps the
    dimension in which the samples lie if its length is kept; a function that mixes samples while
    keeping shapes is left to the verification of results.
    """

    def __init__(self) -> None:
        self._known: dict[tuple, list[BatchAxis | None]] = {}

    def __call__(
        self,
        function: Callable,
        args: tuple,
        kwargs: dict[str, Any],
        inputs: list[tuple[Tensor, BatchAxis | None]],
        outputs: list[Tensor],
    ) -> list[BatchAxis | None]:
        """The axis of every output; None where it is unknown."""
        known = [(tensor, axis) for tensor, axis in inputs if axis is not None]
        if len(known) < len(inputs):
            return [None] * len(outputs)
        if function in MOVES:
            return self._moved(function, args, kwargs, known, len(outputs))
        if function in REDUCTIONS and len(known) == 1:
            axis = _reduced(known[0], args, kwargs, outputs[0])
            return [axis] * len(outputs)
        if function in MATRIX_PRODUCTS and any(
            _is_contracted(*pair) for pair in _sides(args, known)
        ):
            return [None] * len(outputs)
        from_right = function in ELEMENTWISE or function in MATRIX_PRODUCTS
        return [_kept(known, output, from_right) for output in outputs]

    def _moved(
        self,
        function: Callable,
        args: tuple,
        kwargs: dict[str, Any],
        inputs: list[tuple[Tensor, BatchAxis]],
        n_outputs: int,
    ) -> list[BatchAxis | None]:
        axes = {id(tensor): axis for tensor, axis in inputs}
        key = _shape_key(function, args, kwargs, axes)
        if key is None or key not in self._known:
            found = _axes_by_shadow(function, args, kwargs, axes, n_outputs)
            if key is None:
                return found
            self._known[key] = found
        return self._known[key]


def tensors_in(*trees: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    found: list[Tensor] = []
    for tree in trees:
        if isinstance(tree, Tensor):
            found.append(tree)
        elif isinstance(tree, (tuple, list)):
            found += tensors_in(*tree)
        elif isinstance(tree, dict):
            found += tensors_in(*tree.values())
    return found


def _shape_key(
    function: Callable, args: tuple, kwargs: dict[str, Any], axes: dict[int, BatchAxis]
) -> tuple | None:
    """What a move depends on, or None if it depends on the values of a tensor, as indices do."""
    leaves, structure = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if function in INDEXING and len(tensors) > 1:
        return None
    parts = [
        (tuple(leaf.shape), axes.get(id(leaf))) if isinstance(leaf, Tensor) else repr(leaf)
        for leaf in leaves
    ]
    return (function, str(structure), tuple(parts))


def _axes_by_shadow(
    function: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    axes: dict[int, BatchAxis],
    n_outputs: int,
) -> list[BatchAxis | None]:
    n = next(iter(axes.values())).n
    moved = tree_flatten((args, kwargs))[0][0]

    def shadow_of(tensor: Tensor) -> Tensor:
        if function in INDEXING and tensor is not moved:
            return tensor
        axis = axes.get(id(tensor))
        if axis is None:
            return torch.zeros(tensor.shape, device=tensor.device)
        return axis.shadow(tensor.shape, tensor.device)

    shadow_args, shadow_kwargs = tree_map_only(Tensor, shadow_of, (args, kwargs))
    if function in PADDING:  # what is filled in belongs to no sample, whatever its value
        shadow_args = shadow_args[:3]
        shadow_kwargs = {k: v for k, v in shadow_kwargs.items() if k != "value"}
    try:
        results = tensors_in(function(*shadow_args, **shadow_kwargs))
    except (RuntimeError, TypeError, IndexError, ValueError):
        return [None] * n_outputs
    if len(results) != n_outputs:
        return [None] * n_outputs
    return [axis_of_shadow(result, n) for result in results]


def _reduced(
    data: tuple[Tensor, BatchAxis], args: tuple, kwargs: dict[str, Any], output: Tensor
) -> BatchAxis | None:
    tensor, axis = data
    dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if dims is None or isinstance(dims, (bool, Tensor, torch.dtype)):
        return None
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    gone = {d % tensor.ndim for d in dims} if dims else set(range(tensor.ndim))
    if axis.dim in gone:
        return None
    kept = output.ndim == tensor.ndim
    return axis if kept else axis.at(axis.dim - sum(d < axis.dim for d in gone))


def _sides(
    args: tuple, inputs: list[tuple[Tensor, BatchAxis]]
) -> list[tuple[Tensor, BatchAxis, int]]:
    return [
        (tensor, axis, side)
        for tensor, axis in inputs
        for side in range(min(2, len(args)))
        if args[side] is tensor
    ]


def _is_contracted(tensor: Tensor, axis: BatchAxis, side: int) -> bool:
    contracted = tensor.ndim - 1 if side == 0 or tensor.ndim == 1 else tensor.ndim - 2
    return axis.dim == contracted


def _kept(
    inputs: list[tuple[Tensor, BatchAxis]], output: Tensor, from_right: bool
) -> BatchAxis | None:
    found = set()
    for tensor, axis in inputs:
        if tensor.ndim == output.ndim:
            found.add(axis)
        elif from_right:
            found.add(axis.at(axis.dim + output.ndim - tensor.ndim))
        elif output.shape[: axis.dim + 1] == tensor.shape[: axis.dim + 1]:
            found.add(axis)
        else:
            return None
    (axis, *others) = found
    return axis if not others and axis.dim >= 0 and axis.matches(output) else None

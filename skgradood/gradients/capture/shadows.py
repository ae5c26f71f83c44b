"""Moves of elements, followed on a tensor that holds the sample of every element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from skgradood.gradients.capture.axes import BatchAxis, axis_of_shadow
from skgradood.gradients.capture.functions import GATHERS, INDEXING, PADDING
from skgradood.gradients.capture.places import CPU, Axes, shadow_of
from skgradood.gradients.capture.probing import REFUSALS, axes_by_probing


def axes_by_shadow(
    function: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    axes: Axes,
    outputs: list[Tensor],
    n: int,
) -> list[BatchAxis | None]:
    """The axis of every output of a function that only moves elements."""
    unknown: list[BatchAxis | None] = [None] * len(outputs)
    moved, *indices = [leaf for leaf in tree_flatten((args, kwargs))[0] if _is_tensor(leaf)]
    if function in GATHERS and _is_within_samples(args, kwargs, axes):
        axis = next(iter(axes.values()))
        return [axis if axis.matches(outputs[0]) else None]
    if function in INDEXING and any(id(index) in axes for index in indices):
        if id(moved) in axes and any(_is_mask(index) for index in indices):
            if not _masks_agree(args, axes):
                return unknown
        else:
            probed = axes_by_probing(function, args, kwargs, axes, outputs)
            if id(moved) not in axes or probed == unknown:
                return probed

    def shadow(tensor: Tensor) -> Tensor:
        if function in INDEXING and tensor is not moved:
            return tensor.to(CPU)
        return shadow_of(tensor, axes)

    shadow_args, shadow_kwargs = tree_map_only(Tensor, shadow, (args, kwargs))
    if function in PADDING:  # what is filled in belongs to no sample, whatever its value
        shadow_args = shadow_args[:3]
        shadow_kwargs = {k: v for k, v in shadow_kwargs.items() if k != "value"}
    try:
        results = [t for t in tree_leaves(function(*shadow_args, **shadow_kwargs)) if _is_tensor(t)]
    except REFUSALS:
        return unknown
    if len(results) != len(outputs):
        return unknown
    return [axis_of_shadow(result, n) for result in results]


def axis_after_assignment(
    target: Tensor, index: Any, value: Any, axes: Axes, n: int
) -> BatchAxis | None:
    """The axis of the target of an assignment of data, or at places given by data."""
    before = axes.get(id(target))
    masks = [t for t in tree_leaves(index) if _is_tensor(t) and id(t) in axes]
    if masks and (before is None or not _masks_agree((target, index), axes)):
        return None
    shadow = shadow_of(target, axes)
    index = tree_map_only(Tensor, lambda tensor: tensor.to(CPU), index)
    try:
        shadow[index] = shadow_of(value, axes) if _is_tensor(value) else 0.0
    except REFUSALS:
        return None
    after = axis_of_shadow(shadow, n)
    if before is not None and after != before:
        # Constants everywhere in a sample are no other axis.
        untouched = before.shadow(target.shape, CPU)
        return before if ((shadow == untouched) | (shadow == 0)).all() else None
    return after


def _is_within_samples(args: tuple, kwargs: dict[str, Any], axes: Axes) -> bool:
    """Whether ``gather`` has a known dimension other than the one that all its data share."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)]
    if not isinstance(dim, int) or len({tensor.ndim for tensor in tensors}) != 1:
        return False
    divisions = set(axes.values())
    # A constant with a row for every sample is taken row by row, one with a single row is not.
    same_length = {t.shape[axis.dim] for t in tensors for axis in divisions} == {
        axis.size for axis in divisions
    }
    return (
        len(divisions) == 1 and same_length and dim % tensors[0].ndim != next(iter(divisions)).dim
    )


def _masks_agree(args: tuple, axes: Axes) -> bool:
    """Whether each element that a mask picks lies in the sample to which the mask's entry belongs.

    So it is where the mask comes first and has the same axis as what it is applied to.
    """
    target, index = args[:2]
    first, *rest = index if isinstance(index, tuple) else (index,)
    return (
        _is_tensor(first)
        and _is_mask(first)
        and all(part is None or part is Ellipsis or isinstance(part, slice) for part in rest)
        and target.shape[: first.ndim] == first.shape
        and axes.get(id(first)) == axes.get(id(target))
    )


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)

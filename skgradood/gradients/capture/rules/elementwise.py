"""Arithmetic with broadcasting: every sample gets its own copy of the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.functions import (
    ELEMENTWISE,
    is_in_place,
    name_of,
    out_of_place,
    spellings,
)
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.propagation import tensors_in
from skgradood.gradients.capture.rules.arguments import with_tensors
from skgradood.gradients.errors import StrategyRefused


def broadcast_axis(mode: CaptureMode, tensors: list[Tensor], ndim: int) -> BatchAxis:
    """The one axis of all data among tensors, once they are broadcast to ``ndim`` dimensions."""
    axes = set()
    for tensor in tensors:
        if mode.is_data(tensor):
            axis = mode.axis_of(tensor)
            axes.add(axis.at(axis.dim + ndim - tensor.ndim))
    if len(axes) != 1:
        raise StrategyRefused("samples lie along different dimensions of the tensors combined")
    return axes.pop()


def copies_for_broadcast(mode: CaptureMode, tree: Any) -> Any:
    """Replace parameters in nested arguments by per-sample copies that broadcast as they did."""
    tensors = tensors_in(tree)
    ndim = max(tensor.ndim for tensor in tensors)
    axis = broadcast_axis(mode, tensors, ndim)

    def replace(tensor: Tensor) -> Tensor:
        if not mode.is_parameter(tensor):
            return tensor
        return mode.copies(tensor, (1,) * (ndim - tensor.ndim) + tuple(tensor.shape), axis)

    return with_tensors(tree, replace)


def elementwise(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Any:
    """Arithmetic between data and parameters."""
    target = kwargs.get("out", args[0] if is_in_place(function) else None)
    if mode.is_parameter(target):
        return _in_place_of_parameter(mode, function, args, kwargs)
    if target is not None and not mode.is_data(target):
        mode.mark(target, broadcast_axis(mode, tensors_in(args, kwargs), target.ndim))
    args, kwargs = copies_for_broadcast(mode, (args, kwargs))
    with mode:
        return function(*args, **kwargs)


def _in_place_of_parameter(
    mode: CaptureMode, function: Callable, args: tuple, kwargs: dict
) -> Tensor:
    """``derived += data``: what was made from parameters becomes data, as everyone sees it."""
    plain = out_of_place(function)
    if plain is None or "out" in kwargs:
        raise StrategyRefused(f"{name_of(function)} writes data into a parameter")
    target, *rest = args
    shape = target.shape
    before = mode.before_overwriting(target)
    with mode:
        result = plain(before, *rest, **kwargs)
        if not mode.is_data(result) or result.shape != shape:
            raise StrategyRefused(f"{name_of(function)} broadcasts data into a parameter")
        mode.mark(target, mode.axis_of(result))
        return target.copy_(result)


def prelu(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``prelu(x, weight)`` with one weight, or one a channel."""
    x, weight = args
    if not mode.is_data(x):
        raise StrategyRefused("prelu with data as its weight")
    channels = weight.numel()
    layout = [1] * x.ndim
    if channels > 1:
        layout[1] = channels
    with mode:
        positive = x > 0
        # What is positive, and may be infinite, says nothing of the weight.
        other = x.masked_fill(positive, 0) * mode.copies(weight, layout, mode.axis_of(x))
        return torch.where(positive, x, other)


# The tensors broadcast; of most, an element of the result depends on more than one of each.
_BROADCASTING = spellings(
    *("max", "min", "ldexp"),  # of two tensors
    *("cosine_similarity", "pairwise_distance", "cross", "vecdot", "kl_div"),
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "poisson_nll_loss"),
)

RULES = dict.fromkeys(ELEMENTWISE | _BROADCASTING, elementwise) | dict.fromkeys(
    spellings("prelu"), prelu
)

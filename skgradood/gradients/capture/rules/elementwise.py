"""Arithmetic with broadcasting: every sample gets its own copy of the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.functions import ELEMENTWISE, spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.propagation import tensors_in
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

    return tree_map_only(Tensor, replace, tree)


def elementwise(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Any:
    """Arithmetic between data and parameters."""
    name = getattr(function, "__name__", "")
    in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    if (in_place or "out" in kwargs) and not mode.is_data(kwargs.get("out", args[0])):
        raise StrategyRefused(f"{name} writes data into a parameter")
    args, kwargs = copies_for_broadcast(mode, (args, kwargs))
    with mode:
        return function(*args, **kwargs)


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
        return torch.where(x >= 0, x, x * mode.copies(weight, layout, mode.axis_of(x)))


RULES = dict.fromkeys(ELEMENTWISE, elementwise) | dict.fromkeys(spellings("prelu"), prelu)

"""Functions that put parameters beside data: concatenation, stacking, assignment, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.propagation import tensors_in
from skgradood.gradients.capture.rules.elementwise import broadcast_axis
from skgradood.gradients.errors import StrategyRefused


def side_by_side(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Any:
    """Functions whose tensors have equal dimensions, the parameter with a slice for each sample.

    A class token expanded to the batch and concatenated, learned queries in attention.
    """
    tensors = [t for t in tensors_in(args, kwargs) if mode.is_data(t) or mode.is_parameter(t)]
    if len({tensor.ndim for tensor in tensors}) != 1:
        raise StrategyRefused("tensors with different numbers of dimensions")
    axis = broadcast_axis(mode, tensors, tensors[0].ndim)

    def replace(tensor: Tensor) -> Tensor:
        if not mode.is_parameter(tensor):
            return tensor
        if not axis.matches(tensor):
            raise StrategyRefused(
                f"a parameter of shape {tuple(tensor.shape)} beside {axis.size} samples"
            )
        return mode.copies(tensor, tuple(tensor.shape), axis)

    args, kwargs = tree_map_only(Tensor, replace, (args, kwargs))
    with mode:
        return function(*args, **kwargs)


def setitem(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> None:
    """``data[index] = parameter``."""
    target, index, value = args
    if not mode.is_data(target) or not mode.is_parameter(value) or tensors_in(index):
        raise StrategyRefused("an assignment of data into a parameter, or at places given by data")
    with mode:
        place = target[index]
        if not mode.is_data(place) or place.ndim < value.ndim:
            raise StrategyRefused("an assignment that broadcasts against the batch")
        layout = (1,) * (place.ndim - value.ndim) + tuple(value.shape)
        function(target, index, mode.copies(value, layout, mode.axis_of(place)))


RULES = dict.fromkeys(
    spellings("cat", "concat", "concatenate", "stack", "gather", "take_along_dim")
    | {F.scaled_dot_product_attention},
    side_by_side,
) | {torch.Tensor.__setitem__: setitem}

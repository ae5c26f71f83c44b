"""Functions that put parameters beside data: concatenation, stacking, assignment, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.propagation import tensors_in
from skgradood.gradients.capture.rules.arguments import bound, with_tensors
from skgradood.gradients.capture.rules.elementwise import broadcast_axis, copies_for_broadcast
from skgradood.gradients.errors import StrategyRefused


def side_by_side(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Any:
    """Functions whose tensors have equal dimensions, the parameter with a slice for each sample.

    A class token expanded to the batch and concatenated, learned queries in attention, a learned
    field that every sample is looked up in.
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

    args, kwargs = with_tensors((args, kwargs), replace)
    with mode:
        return function(*args, **kwargs)


def attention(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``F.scaled_dot_product_attention``, the four tensors of which broadcast.

    Learned queries, or a learned bias of the logits, have a dimension of one for the batch, a
    slice for every sample, or no such dimension.
    """
    tensors = [t for t in tensors_in(args, kwargs) if mode.is_data(t) or mode.is_parameter(t)]
    ndim = max(tensor.ndim for tensor in tensors_in(args, kwargs))
    if broadcast_axis(mode, tensors, ndim).dim >= ndim - 2:
        raise StrategyRefused("attention over the dimension in which the samples lie")
    args, kwargs = copies_for_broadcast(mode, (args, kwargs))
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


def expand_as(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``parameter.expand_as(data)``, or the other way round."""
    tensor, other = bound(("input", "other"), args, kwargs)
    with mode:
        if mode.is_data(tensor):
            return tensor.expand(tuple(other.shape))
        return torch.broadcast_tensors(tensor, other)[0].expand(tuple(other.shape))


RULES = dict.fromkeys(
    spellings("cat", "concat", "concatenate", "stack", "gather", "take_along_dim", "grid_sampler"),
    side_by_side,
) | {F.scaled_dot_product_attention: attention, torch.Tensor.__setitem__: setitem}
RULES |= dict.fromkeys(spellings("expand_as"), expand_as)

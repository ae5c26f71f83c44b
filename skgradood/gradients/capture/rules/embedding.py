"""Tables of parameters indexed by data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skgradood.gradients.capture.cuts import EmbeddingCut
from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.errors import StrategyRefused


def look_up(mode: CaptureMode, table: Tensor, indices: Tensor, padding_idx: int = -1) -> Tensor:
    """``table[indices]``, registered as data."""
    axis = mode.axis_of(indices)
    # torch refuses negative indices in embeddings, but indexing allows them.
    positive = torch.where(indices < 0, indices + table.shape[0], indices)
    result = EmbeddingCut.apply(mode.anchor, positive, mode.operand(table), axis, padding_idx)
    mode.mark(result, axis)
    return result


def embedding(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, …)``."""
    table, indices, *rest = args
    padding_idx = rest[0] if rest else kwargs.get("padding_idx", -1)
    if (len(rest) > 1 and rest[1]) or kwargs.get("scale_grad_by_freq"):
        raise StrategyRefused("embedding with scale_grad_by_freq mixes the samples of a batch")
    if not mode.is_parameter(table):
        raise StrategyRefused("embedding of data by parameters")
    return look_up(mode, table, indices, padding_idx)


def getitem(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``parameter[data]`` with one tensor of integers."""
    table, index = args
    if mode.is_parameter(table) and isinstance(index, Tensor) and _is_integer(index):
        return look_up(mode, table, index)
    raise StrategyRefused("a parameter indexed by data in a way that is not a plain look-up")


def index_select(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.index_select(parameter, 0, data)``."""
    options: dict[str, Any] = kwargs | dict(zip(("input", "dim", "index"), args, strict=False))
    table, dim, index = options["input"], options["dim"], options["index"]
    if mode.is_parameter(table) and dim in (0, -table.ndim):
        return look_up(mode, table, index)
    raise StrategyRefused("index_select of a parameter along another dimension than the first")


def _is_integer(tensor: Tensor) -> bool:
    # uint8 is a mask in torch's indexing
    return tensor.dtype in (torch.int16, torch.int32, torch.int64)


RULES = (
    {torch.embedding: embedding}
    | dict.fromkeys(spellings("getitem"), getitem)
    | dict.fromkeys(spellings("index_select"), index_select)
)

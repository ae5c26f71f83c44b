"""Tables of parameters indexed by data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skgradood.gradients.capture.cuts import EmbeddingCut
from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.places import is_place
from skgradood.gradients.capture.rules.arguments import bound
from skgradood.gradients.errors import StrategyRefused

_BAG_DEFAULTS: dict[str, Any] = {
    "input": None, "weight": None, "offsets": None, "max_norm": None, "norm_type": 2,
    "scale_grad_by_freq": False, "mode": "mean", "sparse": False, "per_sample_weights": None,
    "include_last_offset": False, "padding_idx": None,
}  # fmt: skip


def look_up(mode: CaptureMode, table: Tensor, indices: Tensor, padding_idx: int = -1) -> Tensor:
    """``table[indices]``, registered as data."""
    constants = mode.without_samples(indices)
    if constants is not None and padding_idx < 0:
        with mode:
            return table[constants]
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


def embedding_bag(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``F.embedding_bag`` of bags of equal size, (n, size)."""
    options = _BAG_DEFAULTS | dict(zip(_BAG_DEFAULTS, args, strict=False)) | kwargs
    indices, table, weights = (options[k] for k in ("input", "weight", "per_sample_weights"))
    if mode.is_parameter(indices):  # the order of torch's old versions
        raise StrategyRefused("embedding_bag of a table of indices")
    if options["offsets"] is not None or indices.ndim != 2:
        raise StrategyRefused("embedding_bag with bags of different sizes")
    if options["max_norm"] is not None or options["scale_grad_by_freq"]:
        raise StrategyRefused("embedding_bag with max_norm or scale_grad_by_freq")
    padding = options["padding_idx"]
    if mode.is_data(table) or not mode.is_data(indices) or (padding is not None and padding < 0):
        raise StrategyRefused(
            "embedding_bag with a table made from data, or a negative padding_idx"
        )
    if options["mode"] == "max" and padding is not None:
        raise StrategyRefused("embedding_bag with the mode 'max' and padding_idx")
    with mode:
        rows = F.embedding(indices, table, padding)
        if weights is not None:
            rows = rows * weights.unsqueeze(-1)
        if options["mode"] == "max":
            return rows.amax(1)
        if padding is None:
            return rows.sum(1) if options["mode"] == "sum" else rows.mean(1)
        counted = (indices != padding).unsqueeze(-1).to(rows.dtype)
        total = (rows * counted).sum(1)
        return total if options["mode"] == "sum" else total / counted.sum(1).clamp_min(1)


def take(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.take(parameter, data)``."""
    table, index = bound(("input", "index"), args, kwargs)
    if not mode.is_parameter(table):
        raise StrategyRefused("data taken at places given by a parameter")
    with mode:
        return table.reshape(-1)[index]


def getitem(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``parameter[data]``: tensors of integers, or a mask with a slice for every sample."""
    table, index = args
    if mode.is_parameter(table) and is_place(index):
        return look_up(mode, table, index)
    if mode.is_parameter(table) and isinstance(index, tuple):
        first = next(k for k, part in enumerate(index) if not _is_whole(part))
        if all(is_place(part) for part in index[first:]):
            return _look_up_in_several(mode, table, first, index[first:])
    first = index[0] if isinstance(index, tuple) and index else index
    if not mode.is_parameter(table) or not isinstance(first, Tensor) or first.dtype != torch.bool:
        raise StrategyRefused("a parameter indexed by data in a way that is not a plain look-up")
    axis = mode.axis_of(first)
    if not axis.matches(table):
        raise StrategyRefused("a mask made from data picks from parameters that all samples share")
    with mode:
        return mode.copies(table, tuple(table.shape), axis)[index]


def _look_up_in_several(
    mode: CaptureMode, table: Tensor, first: int, indices: tuple[Tensor, ...]
) -> Tensor:
    """A table indexed in dimensions from ``first`` on: in one dimension that they make together."""
    dims = range(first, first + len(indices))
    sizes = [table.shape[dim] for dim in dims]
    if any(((i < -size) | (i >= size)).any() for i, size in zip(indices, sizes, strict=True)):
        raise IndexError(f"an index is out of range in a parameter of shape {tuple(table.shape)}")
    with mode:
        place: Any = 0
        for index, size in zip(indices, sizes, strict=True):
            place = place * size + torch.where(index < 0, index + size, index)
        rows = table.movedim(tuple(dims), tuple(range(len(indices)))).flatten(0, len(indices) - 1)
        picked = look_up(mode, rows, place)
        return picked.movedim(tuple(range(place.ndim)), tuple(range(first, first + place.ndim)))


def index_select(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.index_select(parameter, 0, data)``."""
    options: dict[str, Any] = kwargs | dict(zip(("input", "dim", "index"), args, strict=False))
    table, dim, index = options["input"], options["dim"], options["index"]
    if mode.is_parameter(table) and dim in (0, -table.ndim):
        return look_up(mode, table, index)
    raise StrategyRefused("index_select of a parameter along another dimension than the first")


def _is_whole(part: Any) -> bool:
    return isinstance(part, slice) and part == slice(None)


RULES = (
    {torch.embedding: embedding, F.embedding_bag: embedding_bag}
    | dict.fromkeys(spellings("take"), take)
    | dict.fromkeys(spellings("getitem"), getitem)
    | dict.fromkeys(spellings("index_select"), index_select)
)

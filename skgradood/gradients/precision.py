"""Lower precision where it is asked for, and where sums of squares are kept."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Apple's GPUs.
WITHOUT_FLOAT64 = {"mps"}

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}

HALVES = frozenset(AUTOCAST.values())
_CAST = HALVES | {torch.float32}


def check_autocast(autocast: str | None) -> None:
    """Raise ValueError for an unknown precision."""
    if autocast is not None and autocast not in AUTOCAST:
        raise ValueError(f"autocast must be None or one of {sorted(AUTOCAST)}; got {autocast!r}")


def autocast_to(autocast: str | None, device: torch.device) -> AbstractContextManager:
    """A block in which torch computes what it can in the precision named; None changes nothing."""
    if autocast is None:
        return nullcontext()
    # The cache of casts would keep copies of weights that vmap has wrapped.
    return torch.autocast(device.type, AUTOCAST[autocast], cache_enabled=False)


def is_autocast_on(device: str) -> bool:
    """Whether torch computes in lower precision on devices of a type at present."""
    return _knows_autocast(device) and torch.is_autocast_enabled(device)


_knows_autocast = functools.cache(torch.amp.is_autocast_available)


def cast_operands(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Operands of a linear map as torch's own see them: in lower precision under autocast."""
    device = x.device.type
    # Some devices do not know autocast, and may not even be asked.
    if not is_autocast_on(device):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(device)
    return _cast(x, dtype), _cast(weight, dtype), None if bias is None else _cast(bias, dtype)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.dtype in _CAST else tensor


def factor_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """What a parameter's gradients are made of, in the precision in which they are multiplied.

    In bfloat16 products are what autocast is for, and so are those in float16 on an accelerator.
    On a CPU the latter take many times as long as those in float32.
    """
    is_slow = tensor.dtype == torch.float16 and tensor.is_cpu
    return tensor.to(parameter.dtype) if is_slow else tensor


def whole_precision(tensor: Tensor) -> Tensor:
    """A tensor in float32, if it is in half precision."""
    return tensor.float() if is_half(tensor) else tensor


def is_half(tensor: Tensor) -> bool:
    """Whether a tensor has the precision that autocast computes in."""
    return tensor.dtype in HALVES


def sum_dtype(device: torch.device) -> torch.dtype:
    """The precision in which a device sums: float64 where it has that, else float32."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def widened(tensor: Tensor) -> Tensor:
    """A tensor in the precision in which its device sums."""
    return tensor.to(sum_dtype(tensor.device))


def in_float64(tensor: Tensor) -> Tensor:
    """A tensor in float64, brought to the CPU from a device that has none.

    Not in one step: such a device does not convert to float64 on the way either.
    """
    return (tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor).double()

"""Pickles in which tensors are plain bytes: equal for equal values, loadable on any device."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from skgradood.models._cloning import ClonedWithModules


class PortableState(ClonedWithModules):
    """Base of estimators that hold a user's module.

    torch pickles the address of a tensor's memory, so that a copy of a module has another hash
    than the module, and a cache of fitted estimators never finds it; and it pickles the device.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {"portable": portable_bytes(super().__getstate__())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(pickle.loads(state["portable"]))


def portable_bytes(value: Any) -> bytes:
    """Pickle an object so that equal tensors in it give equal bytes, whatever their device."""
    buffer = io.BytesIO()
    _TensorPickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _TensorPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        values = obj.detach().cpu().contiguous()
        content = values.reshape(-1).view(torch.uint8).numpy().tobytes()
        is_parameter = isinstance(obj, nn.Parameter)
        return _tensor, (content, values.dtype, values.shape, obj.requires_grad, is_parameter)


def _tensor(
    content: bytes, dtype: torch.dtype, shape: torch.Size, requires_grad: bool, is_parameter: bool
) -> Tensor:
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)
    tensor = flat.to(dtype).reshape(shape)
    if is_parameter:
        return nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)

"""What is known of tensors while they live."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")
Default = TypeVar("Default")


class TensorTable(Generic[Value]):
    """A value for each of some tensors, by identity; none of them is kept alive.

    Every operation of a model looks into two of these, several times: torch's own
    ``WeakTensorKeyDictionary`` wraps the key of each look-up, and took a fifth of a small model's
    forward pass. Entries of tensors that are gone stay until their place in memory is taken.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        self._entries[id(tensor)] = (weakref.ref(tensor), value)

    def __len__(self) -> int:
        """Entries, those of tensors that are gone among them."""
        return len(self._entries)

    def __contains__(self, tensor: Tensor) -> bool:
        entry = self._entries.get(id(tensor))
        return entry is not None and entry[0]() is tensor

    def __getitem__(self, tensor: Tensor) -> Value:
        entry = self._entries[id(tensor)]
        if entry[0]() is not tensor:
            raise KeyError(f"a tensor of shape {tuple(tensor.shape)}")
        return entry[1]

    def get(self, tensor: Tensor, default: Default) -> Value | Default:
        """The value of a tensor, or the default."""
        entry = self._entries.get(id(tensor))
        return default if entry is None or entry[0]() is not tensor else entry[1]

    def pop(self, tensor: Tensor) -> Value:
        """Take out the value of a tensor."""
        value = self[tensor]
        del self._entries[id(tensor)]
        return value

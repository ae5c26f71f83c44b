"""From fitted objects to JSON nodes and arrays.

A node is a JSON scalar, a list of nodes, or an object with one key that says what it is; the keys
are those of ``DECODERS`` in ``_decode.py``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skgradood.persistence._codecs import PARTS, codec_of
from skgradood.persistence._registry import class_name, function_name

Node = Any


class Encoder:
    """Encodes objects; equal references become one node and one array.

    Attributes
    ----------
    arrays : list of ndarray
        The arrays that nodes refer to by number.
    """

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._array_numbers: dict[int, int] = {}
        self._object_numbers: dict[int, int] = {}
        self._unfinished: set[int] = set()
        self._alive: list[Any] = []  # ids stay unique only while their objects live

    def encode(self, value: Any) -> Node:
        """Encode one object; TypeError names its class if it cannot be saved."""
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        for kind, method in _METHODS:
            # A subclass of a container may hold more than its items, and would come back without.
            exact = kind not in _CONTAINERS or type(value) is kind
            if isinstance(value, kind) and exact:
                return method(self, value)
        raise _not_savable(type(value), "it holds more than numbers, strings and arrays")

    def _float(self, value: float) -> Node:
        return value if math.isfinite(value) else {"float": repr(value)}

    def _list(self, value: list) -> Node:
        return [self.encode(item) for item in value]

    def _tuple(self, value: tuple) -> Node:
        return {"tuple": [self.encode(item) for item in value]}

    def _dict(self, value: dict) -> Node:
        pairs = [[self.encode(key), self.encode(item)] for key, item in value.items()]
        return {"dict": pairs}

    def _slice(self, value: slice) -> Node:
        return {"slice": [self.encode(part) for part in (value.start, value.stop, value.step)]}

    def _array(self, value: np.ndarray) -> Node:
        if value.dtype == object:
            if all(isinstance(item, str) for item in value.flat):
                return {"strings": {"items": list(value.flat), "shape": list(value.shape)}}
            raise _not_savable(np.ndarray, "an array holds Python objects")
        return {"array": self._number_of_array(np.asarray(value))}

    def _scalar(self, value: np.generic) -> Node:
        return {"scalar": self._number_of_array(np.asarray(value))}

    def _tensor(self, value: torch.Tensor) -> Node:
        kind = "parameter" if isinstance(value, torch.nn.Parameter) else "tensor"
        return {kind: self._number_of_array(value.detach().cpu().numpy())}

    def _number_of_array(self, array: np.ndarray) -> int:
        if id(array) not in self._array_numbers:
            self._array_numbers[id(array)] = len(self.arrays)
            self.arrays.append(array)
        return self._array_numbers[id(array)]

    def _dtype(self, value: np.dtype) -> Node:
        return {"dtype": value.str}

    def _torch_dtype(self, value: torch.dtype) -> Node:
        return {"torch_dtype": str(value).removeprefix("torch.")}

    def _device(self, value: torch.device) -> Node:
        return {"device": str(value)}

    def _class(self, value: type) -> Node:
        if issubclass(value, np.generic):
            return {"scalar_type": np.dtype(value).str}
        if issubclass(value, torch.nn.Module):
            return {"class": _module_name(value)}
        name = class_name(value)
        if name is None:
            raise _not_savable(value, "it is not among the known classes")
        return {"class": name}

    def _function(self, value: Callable) -> Node:
        name = function_name(value)
        if name is None:
            shown = getattr(value, "__qualname__", repr(value))
            raise TypeError(
                f"the function {shown} cannot be saved: functions are code. "
                "Use joblib.dump, and joblib.load only on files you trust."
            )
        return {"function": name}

    def _module(self, module: torch.nn.Module) -> Node:
        return self._once(module, self._new_module)

    def _new_module(self, module: torch.nn.Module, number: int) -> Node:
        tensors = [[name, self.encode(tensor)] for name, tensor in module.state_dict().items()]
        body = {
            "class": _module_name(type(module)),
            "number": number,
            "arguments": self.encode(_constructor_arguments(module)),
            "tensors": tensors,
            "training": module.training,
        }
        return {"module": body}

    def _estimator(self, estimator: Any) -> Node:
        return self._once(estimator, self._new_estimator)

    def _new_estimator(self, estimator: Any, number: int) -> Node:
        name = class_name(type(estimator))
        if name is None:
            raise _not_savable(type(estimator), "it is not among the known classes")
        state = self.encode(codec_of(type(estimator)).export(estimator))
        return {"object": {"class": name, "number": number, "state": state}}

    def _once(self, value: Any, encode_new: Callable[[Any, int], Node]) -> Node:
        if id(value) in self._unfinished:
            raise _not_savable(type(value), "it contains itself")
        if id(value) in self._object_numbers:
            return {"ref": self._object_numbers[id(value)]}
        number = len(self._object_numbers)
        self._object_numbers[id(value)] = number
        self._alive.append(value)
        self._unfinished.add(id(value))
        node = encode_new(value, number)
        self._unfinished.discard(id(value))
        return node


_CONTAINERS = (list, tuple, dict)
# The first entry whose type matches decides.
_METHODS: tuple[tuple[Any, Callable[[Encoder, Any], Node]], ...] = (
    (np.generic, Encoder._scalar),
    (float, Encoder._float),
    (np.ndarray, Encoder._array),
    (torch.Tensor, Encoder._tensor),
    (np.dtype, Encoder._dtype),
    (torch.dtype, Encoder._torch_dtype),
    (torch.device, Encoder._device),
    (list, Encoder._list),
    (tuple, Encoder._tuple),
    (dict, Encoder._dict),
    (slice, Encoder._slice),
    (type, Encoder._class),
    (torch.nn.Module, Encoder._module),
    (BaseEstimator, Encoder._estimator),
    (PARTS, Encoder._estimator),
    (Callable, Encoder._function),
)


def _constructor_arguments(module: torch.nn.Module) -> dict[str, Any]:
    """Find the arguments that rebuild a module: attributes of the same names, as scikit-learn does.

    Raises
    ------
    TypeError
        If the module does not keep one of them.
    """
    parameters = inspect.signature(type(module)).parameters.values()
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        or not hasattr(module, parameter.name)
    ]
    if missing:
        raise _not_savable(
            type(module),
            "to be rebuilt, a module must keep its constructor's arguments as attributes of the "
            f"same names, and these are missing: {', '.join(missing)}",
        )
    return {parameter.name: getattr(module, parameter.name) for parameter in parameters}


def _module_name(cls: type) -> str:
    return class_name(cls) or f"{cls.__module__}.{cls.__qualname__}"


def _not_savable(cls: type, reason: str) -> TypeError:
    return TypeError(
        f"{cls.__module__}.{cls.__qualname__} cannot be saved: {reason}. "
        "Use joblib.dump, and joblib.load only on files you trust."
    )

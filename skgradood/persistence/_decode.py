"""From JSON nodes and arrays to objects, trusting neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skgradood.gradients.state import isolated_rng
from skgradood.persistence._codecs import PARTS, codec_of
from skgradood.persistence._registry import find_class, find_function

_SPECIAL_FLOATS = ("nan", "inf", "-inf")
_DTYPE_KINDS = "biufcU"


class Decoder:
    """Decodes nodes; the inverse of ``Encoder``.

    Parameters
    ----------
    read_array : callable
        From the number of an array to the array.
    modules : sequence of type
        Classes of torch modules that are known besides the package's own.
    """

    def __init__(
        self, read_array: Callable[[int], np.ndarray], modules: Sequence[type[torch.nn.Module]]
    ):
        self._read_array = read_array
        self._modules = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in modules}
        self._arrays: dict[int, np.ndarray] = {}
        self._objects: dict[int, Any] = {}

    def decode(self, node: Any) -> Any:
        """Decode one node; ValueError if it is malformed or names what is not known."""
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        if len(node) != 1:
            raise ValueError(f"a node must have one key; got {sorted(node)[:5]}")
        ((kind, body),) = node.items()
        if kind not in DECODERS:
            raise ValueError(f"there is no kind of node called {kind!r}")
        return DECODERS[kind](self, body)

    def _float(self, body: str) -> float:
        if body not in _SPECIAL_FLOATS:
            raise ValueError(f"{body!r} is not a special float")
        return float(body)

    def _tuple(self, body: list) -> tuple:
        return tuple(self.decode(item) for item in body)

    def _dict(self, body: list) -> dict:
        return {self.decode(key): self.decode(value) for key, value in body}

    def _slice(self, body: list) -> slice:
        start, stop, step = (self.decode(part) for part in body)
        return slice(start, stop, step)

    def _array(self, body: int) -> np.ndarray:
        if type(body) is not int:
            raise ValueError(f"{body!r} is not the number of an array")
        if body not in self._arrays:
            self._arrays[body] = self._read_array(body)
        return self._arrays[body]

    def _scalar(self, body: int) -> np.generic:
        array = self._array(body)
        if array.ndim:
            raise ValueError(f"a scalar refers to an array of shape {array.shape}")
        return array.dtype.type(array)

    def _strings(self, body: Mapping) -> np.ndarray:
        if not all(isinstance(item, str) for item in body["items"]):
            raise ValueError("an array of strings holds something else")
        return np.array(body["items"], dtype=object).reshape(body["shape"])

    def _tensor(self, body: int) -> torch.Tensor:
        return torch.from_numpy(self._array(body))

    def _parameter(self, body: int) -> torch.Tensor:
        return torch.nn.Parameter(self._tensor(body))

    def _dtype(self, body: str) -> np.dtype:
        dtype = np.dtype(body) if isinstance(body, str) else None
        if dtype is None or dtype.kind not in _DTYPE_KINDS:
            raise ValueError(f"{body!r} is not a dtype of plain values")
        return dtype

    def _scalar_type(self, body: str) -> type[np.generic]:
        return self._dtype(body).type

    def _torch_dtype(self, body: str) -> torch.dtype:
        dtype = getattr(torch, body, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{body!r} is not a dtype of torch")
        return dtype

    def _device(self, body: str) -> torch.device:
        return torch.device(body)

    def _class(self, body: str) -> type:
        return self._modules.get(body) or self._known_class(body)

    def _function(self, body: str) -> Callable:
        function = find_function(body)
        if function is None:
            raise ValueError(f"the function {body!r} is not known")
        return function

    def _ref(self, body: int) -> Any:
        if body not in self._objects:
            raise ValueError(f"reference to object {body!r}, which does not come before it")
        return self._objects[body]

    def _object(self, body: Mapping) -> Any:
        cls = self._known_class(body["class"])
        if not issubclass(cls, (BaseEstimator, *PARTS)):
            raise ValueError(f"{body['class']} is not an estimator")
        state = self.decode(body["state"])
        if not isinstance(state, dict) or not all(map(_is_attribute, state)):
            raise ValueError(f"the state of {body['class']} is not a set of attributes")
        instance = object.__new__(cls)  # without __init__: the state is all there is
        codec_of(cls).restore(instance, state)
        return self._keep(body["number"], instance)

    def _module(self, body: Mapping) -> torch.nn.Module:
        cls = self._class(body["class"])
        if not issubclass(cls, torch.nn.Module):
            raise ValueError(f"{body['class']} is not a torch module")
        arguments = self.decode(body["arguments"])
        tensors = {name: self.decode(node) for name, node in body["tensors"]}
        # Building a module draws initial weights; nobody else's random numbers may change by it.
        with isolated_rng():
            module = cls(**arguments)
        # Tensors of the file take the place of the initial ones, whatever their floating type.
        module.load_state_dict(tensors, assign=True)
        return self._keep(body["number"], module.train(bool(body["training"])))

    def _known_class(self, name: str) -> type:
        cls = find_class(name) if isinstance(name, str) else None
        if cls is None:
            raise ValueError(
                f"the class {name!r} is not known; if it is a torch module of yours, pass "
                "load(path, modules=[TheClass])"
            )
        return cls

    def _keep(self, number: int, instance: Any) -> Any:
        self._objects[number] = instance
        return instance


DECODERS: dict[str, Callable[[Decoder, Any], Any]] = {
    "float": Decoder._float,
    "tuple": Decoder._tuple,
    "dict": Decoder._dict,
    "slice": Decoder._slice,
    "array": Decoder._array,
    "scalar": Decoder._scalar,
    "strings": Decoder._strings,
    "tensor": Decoder._tensor,
    "parameter": Decoder._parameter,
    "dtype": Decoder._dtype,
    "scalar_type": Decoder._scalar_type,
    "torch_dtype": Decoder._torch_dtype,
    "device": Decoder._device,
    "class": Decoder._class,
    "function": Decoder._function,
    "ref": Decoder._ref,
    "object": Decoder._object,
    "module": Decoder._module,
}


def _is_attribute(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("__")

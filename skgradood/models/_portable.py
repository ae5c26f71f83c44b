"""Pickles in which tensors are plain arrays: equal for equal values, loadable on any device."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from skgradood.gradients.copying import CopyingValues
from skgradood.models._cloning import ClonedWithModules

# These hold no tensors, or tell their own state; picklers know them, and so what they share.
_LEFT_AS_THEY_ARE = (
    type(None), int, float, complex, str, bytes,
    type, FunctionType, BuiltinFunctionType, ModuleType,
    np.ndarray, np.generic, np.dtype, BaseEstimator,
)  # fmt: skip
# Pickle looks for the modules that know these, and may find one of the user's.
_NAMES_IN_TORCH = (torch.dtype, torch.layout, torch.memory_format)


class PortableState(ClonedWithModules):
    """Base of estimators that hold a user's module.

    torch pickles the address of a tensor's memory, so that a copy of a module has another hash
    than the module, and a cache of fitted estimators never finds it; and it pickles the device.
    Everything else is left to whoever pickles: it remembers what several estimators share, and
    may know more than plain pickle does, as how to send the classes of a notebook to a worker.
    """

    def __getstate__(self) -> dict[str, Any]:
        return _portable_values(super().__getstate__())

    def __deepcopy__(self, memo: dict[int, Any]) -> PortableState:
        twin = copy.copy(self)
        memo[id(self)] = twin
        with CopyingValues():
            twin.__dict__.update(copy.deepcopy(vars(self), memo))
        return twin


def portable(value: Any) -> Any:
    """Return what to pickle in place of a value; when loaded, it is an equal value.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
        Pickles of equal values are equal, whatever the device of the tensors in them. What stands
        in for one object is one object as long as something, such as a pickler, holds it.
    """
    if _is_left_as_it_is(value):
        return value
    return _STAND_INS.setdefault(id(value), _StandIn(value))


def _is_left_as_it_is(value: Any) -> bool:
    if isinstance(value, (set, frozenset)):  # hashes sort the items of a set
        return all(map(_is_left_as_it_is, value))
    return isinstance(value, _LEFT_AS_THEY_ARE) and not isinstance(value, nn.Module)


class _StandIn:
    """Pickled as its original is, with stand-ins for what that holds."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if isinstance(self.original, Tensor):
            return _tensor, _contents(self.original)
        if isinstance(self.original, _NAMES_IN_TORCH):
            return _in_torch, (str(self.original).removeprefix("torch."),)
        if type(self.original) is tuple:
            return tuple, (list(map(portable, self.original)),)
        reduction = _reduction(self.original)
        if isinstance(reduction, str):  # the name of a global
            return _itself, (self.original,)
        return _with_stand_ins(*reduction)


# By the original's id: stand-ins hold their originals, so that no other object takes the id.
_STAND_INS: WeakValueDictionary[int, _StandIn] = WeakValueDictionary()


def _reduction(value: Any) -> str | tuple[Any, ...]:
    """How a value says that it is made again."""
    registered = copyreg.dispatch_table.get(type(value))
    return registered(value) if registered else value.__reduce_ex__(4)


def _with_stand_ins(
    make: Callable,
    arguments: tuple,
    state: Any = None,
    items: Iterable | None = None,
    pairs: Iterable[tuple] | None = None,
    *setter: Any,
) -> tuple[Any, ...]:
    """A reduction in which stand-ins are in the place of everything."""
    keyed = None if pairs is None else [(_portable_key(key), portable(v)) for key, v in pairs]
    # A hash of a dict sorts the keys, but models run their modules in this order.
    order = None if keyed is None else [key for key, _ in keyed]
    return (
        _make,
        (order, portable(make), *map(portable, arguments)),
        _portable_values(state) if type(state) is dict else portable(state),
        None if items is None else map(portable, items),
        None if keyed is None else iter(keyed),
        *setter,
    )


def _portable_values(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: portable(value) for name, value in attributes.items()}


def _portable_key(key: Any) -> Any:
    # Other keys stay what they are, so that they can be sorted.
    return portable(key) if isinstance(key, (Tensor, nn.Module)) else key


def _make(order: list | None, make: Callable, *arguments: Any) -> Any:
    # Of copyreg's functions picklers check that they make what is pickled, and not its original.
    return make(*arguments)


def _itself(value: Any) -> Any:
    return value


def _in_torch(name: str) -> Any:
    return getattr(torch, name)


def _contents(tensor: Tensor) -> tuple[Any, ...]:
    values = tensor.detach().cpu().contiguous()
    content = values.reshape(-1).view(torch.uint8).numpy()
    is_parameter = isinstance(tensor, nn.Parameter)
    shape = tuple(values.shape)
    requires_grad = tensor.requires_grad and tensor.is_leaf  # what has a history is a value
    return content, portable(values.dtype), shape, requires_grad, is_parameter


def _tensor(
    content: np.ndarray,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    requires_grad: bool,
    is_parameter: bool,
) -> Tensor:
    # A copy: torch must not share memory with an array that may be read-only.
    tensor = torch.tensor(content).view(dtype).reshape(shape)
    if is_parameter:
        return nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)

"""Pickles in which tensors are plain arrays: equal for equal values, loadable on any device."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable, Iterable, Iterator
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
    type(None), int, float, complex, str, bytes, set, frozenset,
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
        return {name: portable(value) for name, value in super().__getstate__().items()}

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
    if isinstance(value, _LEFT_AS_THEY_ARE):
        return value
    return _STAND_INS.setdefault(id(value), _StandIn(value))


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
    # Picklers compare the class of what copyreg makes with that of what they pickle, the stand-in.
    made = (_make, tuple(map(portable, (make, *arguments))))
    return (
        *made,
        portable(state),
        None if items is None else map(portable, items),
        None if pairs is None else _portable_pairs(pairs),
        *setter,
    )


def _portable_pairs(pairs: Iterable[tuple]) -> Iterator[tuple]:
    for key, value in pairs:
        # Other keys stay what they are: a hash of a dict sorts them.
        yield portable(key) if isinstance(key, (Tensor, nn.Module)) else key, portable(value)


def _make(make: Callable, *arguments: Any) -> Any:
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
    return content, portable(values.dtype), shape, tensor.requires_grad, is_parameter


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

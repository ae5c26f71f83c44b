"""A device that stands in for an Apple GPU: no float64, and looking at a value means waiting.

torch calls it "meta", its own device of tensors without values, which autograd and functorch know
on every machine. Here the tensors have values, which they hold on the CPU. Everything that runs on
the device comes by `SimulatedDevice`, which raises where an Apple GPU would: at float64, at
operands of two devices, and at a conversion to float64 on the way to the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout, precision

DEVICE = torch.device("meta")

_ABSENT = (torch.float64, torch.complex128)
_aten = torch.ops.aten
# Python, or the size of a result, needs a value.
_LOOKING = {
    *(_aten._local_scalar_dense.default, _aten.equal.default, _aten.is_nonzero.default),
    *(_aten.nonzero.default, _aten.masked_select.default),
}
# Places may be told on the CPU; they are sent.
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}
# Operands may be on two devices.
_TRAVELLING = {_aten._to_copy.default, _aten.copy_.default, *_INDEXING}
_SUBSCRIPTS = {Tensor.__getitem__, Tensor.__setitem__}


class TensorThere(Tensor):
    """A tensor on the simulated device, with its values on the CPU."""

    __slots__ = ("memory", "values_here")

    @staticmethod
    def __new__(cls, values: Tensor) -> TensorThere:
        _check_exists(values.dtype)
        return Tensor._make_wrapper_subclass(
            cls, values.shape, values.stride(), values.storage_offset(),
            dtype=values.dtype, device=DEVICE,
        )  # fmt: skip

    def __init__(self, values: Tensor) -> None:
        self.values_here = values
        self.memory = values.untyped_storage()._cdata

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function in _SUBSCRIPTS:  # torch would make a list a tensor without values
            args = (args[0], _with_tensors(args[1]), *args[2:])
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _Call(function, args, kwargs or {}).run()


class SimulatedDevice(TorchDispatchMode):
    """Runs everything whose tensors are, or are to be, on the device.

    Attributes
    ----------
    waits : Counter of str
        How often Python waited for the device, by the operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        call = _Call(function, args, kwargs or {})
        if call.waits:
            self.waits[str(function)] += 1
        return call.run()


class GeneratorThere(torch.Generator):
    """A generator of the device, or of the CPU, that draws the CPU's numbers."""

    def __new__(cls, device: Any = "cpu") -> GeneratorThere:
        generator = super().__new__(cls, "cpu")
        generator.home = torch.device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self.home


@contextmanager
def simulated_device(monkeypatch: Any) -> Iterator[SimulatedDevice]:
    """A block in which ``DEVICE`` is such a device, for torch and for the package."""
    with monkeypatch.context() as patch, SimulatedDevice() as device:
        patch.setattr(precision, "WITHOUT_FLOAT64", {DEVICE.type})
        patch.setattr(torch, "Generator", GeneratorThere)
        yield device


def moved(module: nn.Module) -> nn.Module:
    """The module with its tensors on the device, those that are shared still so."""
    there: dict[int, Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        if id(tensor) not in there:
            copy = tensor.detach().to(DEVICE)
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, tensor.requires_grad)
            there[id(tensor)] = copy
        return there[id(tensor)]

    for child in module.modules():
        for tensors in (child._parameters, child._buffers):
            tensors.update({k: move(t) for k, t in tensors.items() if t is not None})
    return module


class _Call:
    """One operator of torch's, with what it is called on."""

    def __init__(self, function: Any, args: tuple, kwargs: dict) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.tensors: list[Tensor] = []
        _mapped((args, kwargs), self.tensors.append)
        self.there = [tensor for tensor in self.tensors if isinstance(tensor, TensorThere)]
        lost = [t for t in self.tensors if t.is_meta and not isinstance(t, TensorThere)]
        assert not lost, f"{function} of a tensor that torch made without values"
        self.target = None if kwargs.get("device") is None else torch.device(kwargs["device"])

    @property
    def leaves(self) -> bool:
        """Whether values are copied from the device to the CPU."""
        if self.function is _aten._to_copy.default:
            return bool(self.there) and self.target not in (None, DEVICE)
        if self.function is _aten.copy_.default:
            return bool(self.there) and not isinstance(self.args[0], TensorThere)
        return False

    @property
    def waits(self) -> bool:
        """Whether Python waits for the device."""
        if self.function in _INDEXING:
            return any(tensor.dtype == torch.bool for tensor in self.there[1:])
        return self.leaves or (self.function in _LOOKING and bool(self.there))

    def run(self) -> Any:
        if not self.there and self.target != DEVICE:
            return self.function(*self.args, **self.kwargs)
        if self.leaves:
            return self._fetched()
        if self.function not in _TRAVELLING:
            self._check_operands()
        args, kwargs = _mapped((self.args, self.kwargs), _values)
        if self.target == DEVICE:
            kwargs["device"] = torch.device("cpu")
        return _mapped(self.function(*args, **kwargs), self._there)

    def _fetched(self) -> Tensor:
        (source,) = self.there
        arrives = self.args[0] if self.function is _aten.copy_.default else None
        dtype = self.kwargs.get("dtype") if arrives is None else arrives.dtype
        if dtype not in (None, source.dtype):
            _check_exists(dtype)  # such a device does not convert on the way either
        args, kwargs = _mapped((self.args, self.kwargs), _values)
        return self.function(*args, **kwargs)

    def _check_operands(self) -> None:
        for tensor in self.tensors:
            _check_exists(tensor.dtype)
            if tensor.ndim > 0 and not isinstance(tensor, TensorThere):
                raise RuntimeError(
                    f"{self.function} of tensors on two devices: one on the CPU has shape "
                    f"{tuple(tensor.shape)}"
                )

    def _there(self, values: Tensor) -> TensorThere:
        """A result on the device: the argument that was written to, a view of one, or new."""
        result = TensorThere(values)
        for argument in self.there:
            if argument.values_here is values:
                if argument.shape != values.shape:
                    _reshape_in_place(argument, self)
                return argument
            if argument.memory == result.memory:
                torch._functionalize_unsafe_set(result, argument)
                break
        return result


def _reshape_in_place(tensor: TensorThere, call: _Call) -> None:
    """Let torch give the tensor the shape that its values have got already."""
    with torch.utils._mode_utils.no_dispatch():
        call.function(*call.args, **call.kwargs)


def norms_there(
    module: nn.Module, X: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, np.ndarray]:
    """The strategy that serves a module on the device, in batches of 3, and its squared norms."""
    with simulated_device(monkeypatch):
        engine = GradientEngine(module, device=DEVICE, batch_size=3)
        norms = SquaredNorms(layer_layout(module))
        engine.run(X, norms)
        return engine.strategy, norms.result()


def _mapped(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """Nested arguments or results with every tensor replaced."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)([_mapped(item, function) for item in tree])
    if isinstance(tree, dict):
        return {key: _mapped(value, function) for key, value in tree.items()}
    return tree


def _values(tensor: Tensor) -> Tensor:
    return tensor.values_here if isinstance(tensor, TensorThere) else tensor


def _with_tensors(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_with_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _check_exists(dtype: torch.dtype) -> None:
    if dtype in _ABSENT:
        raise TypeError(f"the simulated device has no {dtype}")

"""A trained module as plain arrays: the same bytes in every process, loadable on any device."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Number
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.gradients.state import isolated_rng
from skgradood.models._batches import resolve_device
from skgradood.models._cloning import ClonedWithModules


@dataclass(frozen=True)
class ModuleRecipe:
    """How a module was made, so that it can be made again before its arrays are loaded.

    Parameters
    ----------
    factory : callable
        Class of the module, or a function that makes one.
    arguments : mapping
        Its keyword arguments.
    dtype : torch.dtype
        Floating dtype of parameters and buffers.
    """

    factory: Callable[..., nn.Module]
    arguments: Mapping[str, Any]
    dtype: torch.dtype

    def make(self) -> nn.Module:
        """Make the module, on the CPU.

        Raises
        ------
        TypeError
            If the factory is an instance, makes no module, or makes one without ``log_prob``.
        """
        if isinstance(self.factory, nn.Module):
            raise TypeError(
                f"module must be a class or a function that makes a module; got an instance of "
                f"{type(self.factory).__name__}. Pass the class and its arguments as module__..., "
                "or give a trained module itself to the detector."
            )
        module = self.factory(**self.arguments)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module must make a torch.nn.Module; got one of {type(module).__name__}"
            )
        if not callable(getattr(module, "log_prob", None)):
            raise TypeError(
                f"{type(module).__name__} has no method log_prob(X) -> (n,). Give it one that "
                "returns the log-likelihood of every sample in nats."
            )
        return module.to(self.dtype)

    def check_unchanged(self, now: ModuleRecipe) -> None:
        """Refuse to go on training the module where parameters ask for another one by now.

        Parameters
        ----------
        now : ModuleRecipe
            How the module would be made now. What cannot be compared counts as the same.

        Raises
        ------
        ValueError
            Naming the parameter, and what the module was made with.
        """
        before, after = self._by_parameter(), now._by_parameter()
        for name in before | after:
            # What a factory takes by **kwargs need not have been there before.
            made_with, wanted = before.get(name), after.get(name)
            if _differ(made_with, wanted):
                raise ValueError(
                    f"training goes on with the module of the last fit, which was made with "
                    f"{name}={made_with!r}; got {name}={wanted!r}. Set it back, or call fit with "
                    "warm_start=False to make the module anew."
                )

    def _by_parameter(self) -> dict[str, Any]:
        """All that makes the module, by the names of the estimator's parameters."""
        signature = inspect.signature(self.factory).parameters.values()
        defaults = {p.name: p.default for p in signature if p.default is not p.empty}
        arguments = defaults | dict(self.arguments)
        dtype = str(self.dtype).removeprefix("torch.")
        return {"module": self.factory, "dtype": dtype} | {
            f"module__{name}": value for name, value in arguments.items()
        }


_PLAIN = (
    type(None), Number, str, bytes, torch.dtype, torch.device,
    type, FunctionType, BuiltinFunctionType, MethodType,
)  # fmt: skip
_COMPARED = (*_PLAIN, list, tuple, dict, partial)


def _differ(one: Any, other: Any) -> bool:
    """Whether two values differ for certain, arrays by their content."""
    if one is other:
        return False
    one, other = _without_arrays(one), _without_arrays(other)

    def both(kinds: Any) -> bool:
        return isinstance(one, kinds) and isinstance(other, kinds)

    if both((list, tuple)):
        return len(one) != len(other) or any(map(_differ, one, other))
    if both(dict):
        return one.keys() != other.keys() or any(_differ(one[key], other[key]) for key in one)
    if both(partial):
        return any(
            _differ(getattr(one, a), getattr(other, a)) for a in ("func", "args", "keywords")
        )
    if both(_PLAIN):
        return one != other and (one == one or other == other)  # NaN is not itself
    return isinstance(one, _COMPARED) or isinstance(other, _COMPARED)


def _without_arrays(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, Tensor)) else value


# Options that take part in training only, and may be large or hold data, with their defaults.
TRAINING_OPTIONS = {
    "outliers": None,
    "outlier_loss": "softplus",
    "initial_model": None,
    "warm_start": False,
}
# A state without these is one of before they were there, or one that leaves them out.
_DEFAULTS = TRAINING_OPTIONS | {"supervised_weight": 1.0}


class NetState(ClonedWithModules):
    """Pickling of an estimator that holds the module ``module_`` and its ``_recipe``."""

    device: Any
    module_: nn.Module
    _recipe: ModuleRecipe

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("net_", None)
        for name, default in _DEFAULTS.items():
            if type(state[name]) is type(default) and state[name] == default:
                del state[name]
        if "module_" in state:
            state["module_"] = to_arrays(state["module_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_DEFAULTS | state)
        if "module_" in state:
            self.module_ = restore(self._recipe, state["module_"], self.device)


def to_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers of a module as arrays, by name."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def restore(
    recipe: ModuleRecipe, arrays: Mapping[str, np.ndarray], device: str | torch.device
) -> nn.Module:
    """Make a module again and give it its arrays, in evaluation mode.

    Parameters
    ----------
    recipe : ModuleRecipe
    arrays : mapping of str to ndarray
        As `to_arrays` returned them.
    device : str or torch.device
        Where the module goes; the CPU, with a warning, on a machine that has no such device.
    """
    with isolated_rng():  # initialisation draws numbers, which the arrays then replace
        module = recipe.make()
    # A copy: torch must not share memory with an array that may be read-only.
    module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return module.to(_available_device(device)).eval()


def _available_device(device: str | torch.device) -> torch.device:
    try:
        return resolve_device(device)
    except ValueError:
        warnings.warn(
            f"the estimator was made for device={str(device)!r}, which is not available here; "
            "its module is on the CPU now",
            stacklevel=3,
        )
        return torch.device("cpu")

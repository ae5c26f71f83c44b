"""What a layer is: how parameter tensors are grouped, and what the groups are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

_PARAMETRIZATIONS = ".parametrizations."


@dataclass(frozen=True)
class LayerSlot:
    """Where the squared gradient of one parameter tensor is added.

    Attributes
    ----------
    columns : slice
        The columns of the (n, L) result that belong to the tensor.
    split : callable or None
        None: the whole tensor is one layer. Otherwise a map from the squared gradient
        (m, *shape) to (m, number of columns).
    """

    columns: slice
    split: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class LayerLayout:
    """Names of the L layers, and the slot of every parameter tensor that requires grad."""

    names: list[str]
    slots: dict[str, LayerSlot]


def check_module(module: object) -> None:
    """Raise TypeError unless the argument is a module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Named parameters that require grad; a tied parameter occurs once, under its first name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def layer_layout(module: nn.Module, layers: str = "parameter") -> LayerLayout:
    """Group the trainable parameters of a module into layers.

    Parameters
    ----------
    module : nn.Module
        The model.
    layers : {"parameter", "module", "channel"}, default="parameter"
        One layer for a parameter tensor (as in the papers), for a module's own tensors together,
        or for an output channel of a tensor.

    Returns
    -------
    LayerLayout

    Raises
    ------
    ValueError
        If ``layers`` is unknown, or no parameter requires grad.
    """
    if layers not in _LAYOUTS:
        raise ValueError(f"layers must be one of {sorted(_LAYOUTS)}; got {layers!r}")
    check_module(module)
    parameters = trainable_parameters(module)
    if not parameters:
        raise ValueError(
            f"{type(module).__name__} has no parameter with requires_grad=True, so there is no "
            "gradient to measure"
        )
    return _LAYOUTS[layers](module, parameters)


def layer_names(module: nn.Module, *, layers: str = "parameter") -> list[str]:
    """Names of the layers, in the order of the columns of :func:`layer_gradient_norms`.

    Parameters
    ----------
    module : nn.Module
        The model.
    layers : {"parameter", "module", "channel"}, default="parameter"
        See :func:`layer_gradient_norms`.

    Returns
    -------
    list of str
        L names.
    """
    return list(layer_layout(module, layers).names)


def _by_parameter(module: nn.Module, parameters: dict[str, nn.Parameter]) -> LayerLayout:
    names = list(parameters)
    return LayerLayout(names, {name: LayerSlot(slice(i, i + 1)) for i, name in enumerate(names)})


def _by_module(module: nn.Module, parameters: dict[str, nn.Parameter]) -> LayerLayout:
    owners = {name: _owner(name) or type(module).__name__ for name in parameters}
    names = list(dict.fromkeys(owners.values()))
    column = {owner: i for i, owner in enumerate(names)}
    return LayerLayout(
        names,
        {name: LayerSlot(slice(column[o], column[o] + 1)) for name, o in owners.items()},
    )


def _by_channel(module: nn.Module, parameters: dict[str, nn.Parameter]) -> LayerLayout:
    names: list[str] = []
    slots = {}
    for name, parameter in parameters.items():
        split = _channel_split(module, name, parameter)
        n_channels = split(torch.zeros(1, *parameter.shape)).shape[1] if split else 1
        slots[name] = LayerSlot(slice(len(names), len(names) + n_channels), split)
        names += [f"{name}[{c}]" for c in range(n_channels)] if split else [name]
    return LayerLayout(names, slots)


def _owner(parameter_name: str) -> str:
    """The path of the module that a user would say owns the parameter."""
    if _PARAMETRIZATIONS in f".{parameter_name}":
        return f".{parameter_name}".split(_PARAMETRIZATIONS)[0].lstrip(".")
    return parameter_name.rpartition(".")[0]


def _channel_split(
    module: nn.Module, name: str, parameter: nn.Parameter
) -> Callable[[Tensor], Tensor] | None:
    if parameter.ndim == 0:
        return None
    owner = module.get_submodule(_owner(name))
    if isinstance(owner, _ConvTransposeNd) and parameter.ndim > 1:
        return _TransposedChannels(owner.groups)
    return _leading_channels


def _leading_channels(squares: Tensor) -> Tensor:
    return squares.flatten(2).sum(2) if squares.ndim > 2 else squares


class _TransposedChannels:
    """Transposed convolutions keep weights as (in, out / groups, ...)."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(self, squares: Tensor) -> Tensor:
        m, n_in, n_out = squares.shape[:3]
        grouped = squares.reshape(m, self.groups, n_in // self.groups, n_out, -1)
        return grouped.sum((2, 4)).reshape(m, self.groups * n_out)


_LAYOUTS: dict[str, Callable[[nn.Module, dict[str, nn.Parameter]], LayerLayout]] = {
    "parameter": _by_parameter,
    "module": _by_module,
    "channel": _by_channel,
}

LAYERS = tuple(_LAYOUTS)

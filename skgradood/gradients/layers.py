"""What a layer is: how parameter tensors are grouped, and what the groups are called."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from skgradood.gradients.state import uncompiled_name

LayerFunction = Callable[[str, nn.Parameter], str | None]
Layers = str | re.Pattern[str] | LayerFunction | Mapping[str, Sequence[str]]

_PARAMETRIZATIONS = ".parametrizations."
_REGEX = "regex:"
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class LayerSlot:
    """Where the squared gradient of one parameter tensor is added.

    Attributes
    ----------
    columns : slice or list of int
        The columns of the (n, L) result that belong to the tensor: a slice, or a list without
        repeats for a tensor in several layers.
    split : callable or None
        None: the whole tensor is one layer. Otherwise a map from the squared gradient
        (m, *shape) to (m, number of columns).
    """

    columns: slice | list[int]
    split: Callable[[Tensor], Tensor] | None = None

    def add(self, numbers: Tensor, layers: Sequence[Tensor], start: int) -> None:
        """Add numbers of the whole tensor, (m,), to its layers' of m samples from ``start``."""
        m, columns = numbers.shape[0], self.columns
        own = layers[columns] if isinstance(columns, slice) else [layers[k] for k in columns]
        for layer in own:
            (layer if layer.shape[0] == m else layer.narrow(0, start, m)).add_(numbers)


@dataclass(frozen=True)
class LayerLayout:
    """The L layers of a module.

    Attributes
    ----------
    names : list of str
        Names of the layers.
    slots : dict of str to LayerSlot
        The slot of every parameter tensor that is in a layer, by the parameter's name.
    n_parameters : list of int
        Scalar parameters in each layer.
    """

    names: list[str]
    slots: dict[str, LayerSlot]
    n_parameters: list[int]


_Parameters = Mapping[str, nn.Parameter]
_Builder = Callable[[nn.Module, _Parameters], LayerLayout]


def check_module(module: object) -> None:
    """Raise TypeError unless the argument is a module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Named parameters that require grad; a tied parameter occurs once, under its first name.

    Modules that ``torch.compile`` has wrapped are left out of the names.
    """
    # By hand, as every batch asks: `named_parameters` takes five times as long.
    found: dict[str, nn.Parameter] = {}
    _gather(module, "", found, set())
    return {uncompiled_name(name): p for name, p in found.items() if p.requires_grad}


def _gather(
    module: nn.Module, prefix: str, found: dict[str, nn.Parameter], seen: set[object]
) -> None:
    """Parameters of a module and those in it, by name; each module and each tensor once."""
    seen.add(module)
    for name, parameter in module._parameters.items():
        if parameter is not None and id(parameter) not in seen:
            seen.add(id(parameter))
            found[prefix + name] = parameter
    for name, child in module._modules.items():
        if child is not None and child not in seen:
            _gather(child, f"{prefix}{name}.", found, seen)


def layer_layout(module: nn.Module, layers: Layers = "parameter") -> LayerLayout:
    r"""Group the trainable parameters of a module into layers.

    Parameters
    ----------
    module : nn.Module
        The model.
    layers : str, re.Pattern, callable or dict, default="parameter"
        What is one layer. Columns have the order of first occurrence among the parameters, or
        that of the dict; parameters in no layer are left out.

        - "parameter": a parameter tensor, as in the papers. "module": a module's own tensors
          together. "channel": an output channel of a tensor.
        - A compiled regular expression, searched for in the parameters' names: one layer for each
          distinct text of group 1, or of the whole match if there is no such group (or it took no
          part). ``re.compile(r"^(encoder|decoder)\.")`` has two layers. ``"regex:<expression>"``
          is the same as a plain string, which `skgradood.persistence.save` can write; the prefix
          keeps a misspelt "module" from being read as an expression that matches nothing.
        - A callable ``(name, parameter) -> str or None``, None for a parameter to leave out.
        - A dict from layers' names to lists of parameters' names. A parameter may be in several
          layers.

    Returns
    -------
    LayerLayout

    Raises
    ------
    TypeError
        If ``layers`` or what it holds or returns is of another type.
    ValueError
        If ``layers`` is an unknown string, names an unknown parameter or makes no layer or an
        empty one; or no parameter requires grad.
    """
    build = _builder(layers)
    check_module(module)
    parameters = trainable_parameters(module)
    if not parameters:
        raise ValueError(
            f"{type(module).__name__} has no parameter with requires_grad=True, so there is no "
            "gradient to measure"
        )
    return build(module, parameters)


def layer_names(module: nn.Module, *, layers: Layers = "parameter") -> list[str]:
    """Names of the layers, in the order of the columns of :func:`layer_gradient_norms`.

    Parameters
    ----------
    module : nn.Module
        The model.
    layers : str, re.Pattern, callable or dict, default="parameter"
        See :func:`skgradood.gradients.layer_layout`.

    Returns
    -------
    list of str
        L names.
    """
    return list(layer_layout(module, layers).names)


def check_layers(layers: Layers) -> None:
    """Raise the errors about ``layers`` that can be seen without a module."""
    _builder(layers)


def _builder(layers: Layers) -> _Builder:
    if isinstance(layers, str):
        return _builder_of_text(layers)
    for kind, builder_of_kind in _BUILDERS_BY_TYPE.items():
        if isinstance(layers, kind):
            return builder_of_kind(layers)
    raise TypeError(f"layers must be {_expected()}; got {layers!r}")


def _builder_of_text(layers: str) -> _Builder:
    if layers in _LAYOUTS:
        return _LAYOUTS[layers]
    if not layers.startswith(_REGEX):
        raise ValueError(f"layers must be {_expected()}; got {layers!r}")
    try:
        return _builder_of_pattern(re.compile(layers.removeprefix(_REGEX)))
    except re.error as error:
        raise ValueError(f"layers={layers!r} holds no regular expression: {error}") from error


def _builder_of_pattern(pattern: re.Pattern[str]) -> _Builder:
    if not isinstance(pattern.pattern, str):
        raise TypeError(f"layers must be a regular expression of str, not bytes; got {pattern!r}")

    def layer_of(name: str, parameter: nn.Parameter) -> str | None:
        match = pattern.search(name)
        if match is None:
            return None
        group = match.group(1) if pattern.groups else None
        return match.group() if group is None else group

    return partial(_by_function, layer_of)


def _builder_of_function(function: LayerFunction) -> _Builder:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return partial(_by_function, function)
    try:
        signature.bind("name", None)
    except TypeError as error:
        raise TypeError(
            "layers must be callable as layers(name, parameter) -> str or None; got a callable "
            f"with the signature {signature}"
        ) from error
    return partial(_by_function, function)


def _builder_of_lists(lists: Mapping[str, Sequence[str]]) -> _Builder:
    if not lists:
        raise ValueError("layers must hold at least one layer; got an empty dict")
    for layer, members in lists.items():
        _check_layer_name(layer, "a key of layers")
        if isinstance(members, str) or not isinstance(members, Sequence):
            raise TypeError(f"layers[{layer!r}] must be a list of parameter names; got {members!r}")
        if not members:
            raise ValueError(f"layers[{layer!r}] is empty; give it parameter names, or drop it")
        if len(set(members)) < len(members):
            raise ValueError(f"layers[{layer!r}] holds a parameter twice: {list(members)!r}")
    return partial(_by_lists, lists)


def _by_parameter(module: nn.Module, parameters: _Parameters) -> LayerLayout:
    return _layout_of({name: [name] for name in parameters}, parameters)


def _by_module(module: nn.Module, parameters: _Parameters) -> LayerLayout:
    def owner(name: str, parameter: nn.Parameter) -> str:
        return _owner(name) or type(module).__name__

    return _by_function(owner, module, parameters)


def _by_channel(module: nn.Module, parameters: _Parameters) -> LayerLayout:
    layout = LayerLayout([], {}, [])
    for name, parameter in parameters.items():
        split = _channel_split(module, name, parameter)
        squares = torch.empty(1, *parameter.shape, device="meta")
        n_channels = split(squares).shape[1] if split else 1
        start = len(layout.names)
        layout.slots[name] = LayerSlot(slice(start, start + n_channels), split)
        layout.names.extend([f"{name}[{c}]" for c in range(n_channels)] if split else [name])
        layout.n_parameters.extend([parameter.numel() // max(1, n_channels)] * n_channels)
    return layout


def _by_function(
    function: LayerFunction, module: nn.Module, parameters: _Parameters
) -> LayerLayout:
    groups: dict[str, list[str]] = {}
    for name, parameter in parameters.items():
        layer = function(name, parameter)
        if layer is not None:
            _check_layer_name(layer, f"the layer of parameter {name!r}")
            groups.setdefault(layer, []).append(name)
    if not groups:
        raise ValueError(
            f"layers puts none of the parameters of {type(module).__name__} into a layer; "
            f"{_names_of(parameters)}"
        )
    return _layout_of(groups, parameters)


def _by_lists(
    lists: Mapping[str, Sequence[str]], module: nn.Module, parameters: _Parameters
) -> LayerLayout:
    for layer, members in lists.items():
        for name in members:
            if name not in parameters:
                reason = _why_unknown(name, module, parameters)
                raise ValueError(f"layers[{layer!r}] holds {name!r}, but {reason}")
    return _layout_of(lists, parameters)


def _layout_of(groups: Mapping[str, Sequence[str]], parameters: _Parameters) -> LayerLayout:
    columns: dict[str, list[int]] = {}
    for column, members in enumerate(groups.values()):
        for name in members:
            columns.setdefault(name, []).append(column)
    slots = {
        name: LayerSlot(slice(own[0], own[0] + 1) if len(own) == 1 else own)
        for name, own in columns.items()
    }
    sizes = [sum(parameters[name].numel() for name in members) for members in groups.values()]
    return LayerLayout(list(groups), slots, sizes)


def _why_unknown(name: Any, module: nn.Module, parameters: _Parameters) -> str:
    """Say what is wrong with a name that is no trainable parameter's."""
    every = {
        uncompiled_name(known): p for known, p in module.named_parameters(remove_duplicate=False)
    }
    if name in every and not every[name].requires_grad:
        return "this parameter has requires_grad=False, and so no gradient"
    if name in every:
        first = next(other for other, p in parameters.items() if p is every[name])
        return f"this tensor is shared, and counted under its first name; use {first!r}"
    close = difflib.get_close_matches(str(name), parameters)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else _names_of(parameters)
    return f"{type(module).__name__} has no such parameter; {hint}"


def _names_of(parameters: _Parameters) -> str:
    names = [repr(name) for name in list(parameters)[:_SHOWN_NAMES]]
    more = ["..."] if len(parameters) > _SHOWN_NAMES else []
    return f"its {len(parameters)} trainable parameters are {', '.join(names + more)}"


def _check_layer_name(layer: Any, what: str) -> None:
    if not isinstance(layer, str):
        raise TypeError(f"{what} must be a layer's name, a str; got {layer!r}")
    if not layer:
        raise ValueError(f"{what} must be a layer's name; got an empty string")


def _expected() -> str:
    return (
        f"one of {sorted(_LAYOUTS)}, 'regex:<expression>', a compiled regular expression, a "
        "callable (name, parameter) -> str or None, or a dict of layer names to lists of "
        "parameter names"
    )


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


_LAYOUTS: dict[str, _Builder] = {
    "parameter": _by_parameter,
    "module": _by_module,
    "channel": _by_channel,
}
# The first type that fits decides.
_BUILDERS_BY_TYPE: dict[Any, Callable[[Any], _Builder]] = {
    re.Pattern: _builder_of_pattern,
    Mapping: _builder_of_lists,
    Callable: _builder_of_function,
}

LAYERS = tuple(_LAYOUTS)

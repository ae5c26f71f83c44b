"""Functions of a module in which every sample has weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from skgradood.models._calls import input_first, pair


class NoRule(Exception):
    """A parameter meets a function that has no form with weights of the samples' own."""


class OwnWeight(NamedTuple):
    """What takes a parameter's place: a copy for every sample, of the part that has any effect.

    Attributes
    ----------
    values : Tensor of shape (n, *part)
    shape : torch.Size
        Shape of the parameter.
    start : tuple of int
        Where in the parameter the part begins.
    """

    values: Tensor
    shape: torch.Size
    start: tuple[int, ...]


Part = tuple[slice, ...]


class OwnWeights(TorchFunctionMode):
    """Runs functions of some parameters with weights of every sample's own in their place.

    Parameters
    ----------
    parameters : sequence of Tensor
        As the module holds them.
    values : sequence of Tensor of shape (n, *part)
        The samples' copies of each; the first dimension of what they meet is to be n, too.
    parts : sequence of tuple of slice, optional
        Which part of each parameter was copied; all by default.

    Raises
    ------
    NoRule
        From what is run inside, where a parameter meets another function than a convolution, a
        linear map or a normalisation by running moments.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        values: Sequence[Tensor],
        parts: Sequence[Part] | None = None,
    ) -> None:
        super().__init__()
        parts = parts or [_whole(parameter) for parameter in parameters]
        self._own = {
            parameter: OwnWeight(value, parameter.shape, tuple(side.start or 0 for side in part))
            for parameter, value, part in zip(parameters, values, parts, strict=True)
        }
        self._uses: dict[Tensor, list[Part]] = {parameter: [] for parameter in parameters}

    def parts_in_use(self) -> list[Part]:
        """Outside of which the parameters had no effect on anything that was run inside."""
        return [
            uses[0] if len(uses) == 1 else _whole(parameter)
            for parameter, uses in self._uses.items()
        ]

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        met = [tensor for tensor in _tensors_in((args, kwargs)) if tensor in self._own]
        if not met:
            return function(*args, **kwargs)
        if function not in _RULES:
            result = function(*args, **kwargs)
            # What is asked for may be a shape or a device.
            if any(True for _ in _tensors_in(result)):
                raise NoRule(getattr(function, "__name__", str(function)))
            return result
        args, kwargs = input_first(args, kwargs)
        args = tuple(self._replaced(value) for value in args)
        kwargs = {name: self._replaced(value) for name, value in kwargs.items()}
        for parameter in met:
            is_kernel = function is torch.conv2d and parameter.ndim == 4
            part = _part_in_use(*args, **kwargs) if is_kernel else _whole(parameter)
            self._uses[parameter].append(part)
        return _RULES[function](*args, **kwargs)

    def _replaced(self, value: Any) -> Any:
        return self._own.get(value, value) if isinstance(value, Tensor) else value


class ConvolutionsAsProducts(TorchFunctionMode):
    """Runs two-dimensional convolutions as products of matrices.

    ``torch.vmap`` over the weights makes a convolution one with as many groups as there are
    samples, which libraries of convolutions are slow at; a matrix product it makes a batched one.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is torch.conv2d:
            args, kwargs = input_first(args, kwargs or {})
            function = _convolve
        return function(*args, **(kwargs or {}))


class _Line(NamedTuple):
    """A convolution along one dimension."""

    length: int
    width: int
    step: int
    pad: int
    spread: int

    @property
    def n_places(self) -> int:
        return (self.length + 2 * self.pad - self.spread * (self.width - 1) - 1) // self.step + 1

    def taps_in_use(self) -> slice:
        """The kernel without those of its ends that meet nothing but padding."""
        met = [
            tap
            for tap in range(self.width)
            if any(
                0 <= place * self.step - self.pad + tap * self.spread < self.length
                for place in range(self.n_places)
            )
        ]
        return slice(met[0], met[-1] + 1) if met else slice(0, self.width)

    def padding(self, start: int, width: int) -> tuple[int, int]:
        """Zeros before and after for as many taps from ``start`` on."""
        before = self.pad - start * self.spread
        needed = (self.n_places - 1) * self.step + (width - 1) * self.spread + 1
        return before, needed - before - self.length


class _Product(torch.autograd.Function):
    """Batched product of weights (n, o, k) and columns (n, k, p)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(weight, columns)
        return torch.bmm(weight, columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, columns = ctx.saved_tensors
        rows = columns.transpose(1, 2)
        # Libraries are slow at products of a column and a row.
        of_weight = gradient * rows if rows.shape[1] == 1 else torch.bmm(gradient, rows)
        if not ctx.needs_input_grad[1]:
            return of_weight, None
        # This way round, both are read as they lie in memory.
        return of_weight, torch.bmm(gradient.transpose(1, 2), weight).transpose(1, 2)


def _convolve(
    x: Tensor,
    weight: Tensor | OwnWeight,
    bias: Tensor | OwnWeight | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if groups != 1 or x.ndim != 4 or isinstance(padding, str):
        if isinstance(weight, OwnWeight) or isinstance(bias, OwnWeight):
            raise NoRule("conv2d")
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    lines = _lines(x, weight.shape, stride, padding, dilation)
    if isinstance(weight, OwnWeight):
        columns = _columns(x, lines, weight.values.shape[3:], weight.start[2:])
        product = _Product.apply(weight.values.flatten(2), columns)
    else:
        product = weight.flatten(1) @ _columns(x, lines, weight.shape[2:])
    if bias is not None:
        product = product + _values(bias)[..., None]
    return product.unflatten(2, [line.n_places for line in lines])


def _columns(x: Tensor, lines: list[_Line], kernel: Any, start: Any = (0, 0)) -> Tensor:
    """What the kernel's taps meet at every place, (n, k, p)."""
    padding = [line.padding(*taps) for line, *taps in zip(lines, start, kernel, strict=True)]
    step, pad, spread = (
        tuple(getattr(line, name) for line in lines) for name in ("step", "pad", "spread")
    )
    one_place = all(line.n_places == 1 and line.spread == 1 for line in lines)
    if one_place or tuple(kernel) != tuple(line.width for line in lines):
        if any(map(any, padding)):
            x = F.pad(x, (*padding[1], *padding[0]))
        pad = (0, 0)
    if one_place:
        return x.flatten(1)[..., None]
    return F.unfold(x, tuple(kernel), dilation=spread, padding=pad, stride=step)


def _lines(x: Tensor, shape: torch.Size, *options: Any) -> list[_Line]:
    return [_Line(*line) for line in zip(x.shape[2:], shape[2:], *map(pair, options), strict=True)]


def _part_in_use(
    x: Tensor,
    weight: OwnWeight,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Part:
    if isinstance(padding, str):
        return (slice(None),) * 4
    lines = _lines(x, weight.shape, stride, padding, dilation)
    return (slice(None), slice(None), *(line.taps_in_use() for line in lines))


def _map(x: Tensor, weight: Tensor | OwnWeight, bias: Tensor | OwnWeight | None = None) -> Tensor:
    if not isinstance(weight, OwnWeight):
        raise NoRule("linear")
    columns = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)
    product = _Product.apply(weight.values, columns)
    if bias is not None:
        product = product + _values(bias)[..., None]
    return product.transpose(1, 2).reshape(*x.shape[:-1], -1)


def _normalise(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | OwnWeight | None = None,
    bias: Tensor | OwnWeight | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if training or mean is None or variance is None or weight is None or bias is None:
        raise NoRule("batch_norm")
    scale = _values(weight) * (variance + eps).rsqrt()
    shift = _values(bias) - mean * scale
    places = (slice(None), slice(None), *[None] * (x.ndim - 2))
    return torch.addcmul(shift[places], x, scale[places])


_RULES: dict[Callable, Callable] = {
    torch.conv2d: _convolve,
    F.linear: _map,
    F.batch_norm: _normalise,
    torch.batch_norm: _normalise,
}


def _values(weight: Tensor | OwnWeight) -> Tensor:
    """(n, ...), or (1, ...) where all samples share it."""
    return weight.values if isinstance(weight, OwnWeight) else weight[None]


def _whole(parameter: Tensor) -> Part:
    return (slice(None),) * parameter.ndim


def _tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from _tensors_in(branch)
    elif isinstance(tree, dict):
        yield from _tensors_in(tuple(tree.values()))

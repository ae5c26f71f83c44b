"""Convolutions in one, two and three dimensions, and their transposes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from skgradood.gradients.capture.cuts import ConvolutionCut
from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.convolution import ConvolutionGeometry
from skgradood.gradients.errors import StrategyRefused

_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_NAMES = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
_DEFAULTS = {
    "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0
}  # fmt: skip


def convolution(
    mode: CaptureMode,
    function: Callable,
    args: tuple,
    kwargs: dict,
    *,
    d: int,
    transposed: bool,
) -> Tensor:
    """``F.conv{d}d`` or ``F.conv_transpose{d}d``."""
    names = _TRANSPOSED_NAMES if transposed else _NAMES
    options = _DEFAULTS | kwargs | dict(zip(names, args, strict=False))
    x, weight, bias = options["input"], options["weight"], options["bias"]
    if not mode.is_data(x) or mode.is_data(weight) or mode.is_data(bias):
        raise StrategyRefused("a convolution whose kernel is made from data")
    if x.ndim != d + 2:
        raise StrategyRefused("a convolution of input without a batch dimension")
    x, padding = _explicit_padding(mode, x, weight, options, d)
    axis = mode.axis_of(x)
    if axis.dim != 0:
        raise StrategyRefused("a convolution whose first dimension does not hold the samples")
    geometry = ConvolutionGeometry(
        stride=_tuple(options["stride"], d),
        padding=padding,
        dilation=_tuple(options["dilation"], d),
        groups=options["groups"],
        transposed=transposed,
        output_padding=_tuple(options["output_padding"], d),
    )
    bias_operand = None if bias is None else mode.operand(bias)
    result = ConvolutionCut.apply(
        mode.anchor, x, mode.operand(weight), bias_operand, axis, geometry
    )
    mode.mark(result, axis)
    return result


def _explicit_padding(
    mode: CaptureMode, x: Tensor, weight: Tensor, options: dict[str, Any], d: int
) -> tuple[Tensor, tuple[int, ...]]:
    """Numbers for the paddings that have names; "same" may need more on one side."""
    padding = options["padding"]
    if padding == "valid":
        return x, (0,) * d
    if padding != "same":
        return x, _tuple(padding, d)
    pads: list[int] = []
    for kernel, dilation in zip(
        reversed(weight.shape[2:]), reversed(_tuple(options["dilation"], d)), strict=True
    ):
        total = dilation * (kernel - 1)
        pads += [total // 2, total - total // 2]
    with mode:
        return F.pad(x, pads), (0,) * d


def _tuple(value: int | tuple[int, ...], d: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * d if len(values) == 1 else values


def _rules() -> dict[Callable, Callable]:
    rules: dict[Callable, Callable] = {}
    for d in (1, 2, 3):
        for name, transposed in ((f"conv{d}d", False), (f"conv_transpose{d}d", True)):
            rule = functools.partial(convolution, d=d, transposed=transposed)
            rules |= dict.fromkeys(spellings(name), rule)
    return rules


RULES = _rules()

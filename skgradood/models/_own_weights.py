"""Convolutions in which every sample has weights of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ConvolutionsAsProducts(TorchFunctionMode):
    """Runs two-dimensional convolutions as products of matrices.

    ``torch.vmap`` over the weights makes a convolution one with as many groups as there are
    samples, which libraries of convolutions are slow at; a matrix product it makes a batched one.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is torch.conv2d:
            function = _convolve
        return function(*args, **(kwargs or {}))


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if groups != 1 or x.ndim != 4 or isinstance(padding, str):
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    kernel = weight.shape[2:]
    size = [
        (length + 2 * pad - spread * (width - 1) - 1) // step + 1
        for length, width, step, pad, spread in zip(
            x.shape[2:], kernel, *map(_pair, (stride, padding, dilation)), strict=True
        )
    ]
    patches = F.unfold(x, tuple(kernel), dilation=dilation, padding=padding, stride=stride)
    product = weight.flatten(1) @ patches
    if bias is not None:
        product = product + bias[:, None]
    return product.unflatten(2, size)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first

"""Linear maps and matrix products."""

from __future__ import annotations

import string
from collections.abc import Callable

import torch
from torch import Tensor

from skgradood.gradients.capture.axes import BatchAxis, Owners
from skgradood.gradients.capture.cuts import Operand
from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.rules.arguments import bound, renamed
from skgradood.gradients.capture.rules.contraction import as_linear_maps
from skgradood.gradients.capture.rules.elementwise import copies_for_broadcast
from skgradood.gradients.capture.rules.linear_map import apply_linear
from skgradood.gradients.errors import StrategyRefused


def linear(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``F.linear(input, weight, bias=None)``."""
    x, weight, bias = bound(("input", "weight", "bias"), args, kwargs)
    if weight.ndim == 1 or mode.is_data(weight) or not mode.is_data(x):
        # A vector, and a weight made from data, make a product with the bias added.
        with mode:
            product = x @ (weight if weight.ndim == 1 else weight.mT)
            return product if bias is None else product + bias
    if bias is not None and (mode.is_data(bias) or bias.shape != weight.shape[:1]):
        with mode:
            return function(x, weight) + bias
    bias_operand = None if bias is None else mode.operand(bias)
    return apply_linear(mode, x, mode.operand(weight), bias_operand)


def matmul(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """Matrix products between data and a parameter, on either side."""
    left, right = bound(
        ("input", "mat2"), args, renamed(kwargs, other="mat2", tensor2="mat2", vec="mat2")
    )
    if getattr(function, "__name__", "") == "__rmatmul__":
        left, right = right, left
    if mode.is_data(left) and right.ndim == 2 and left.ndim >= 2:
        return apply_linear(mode, left, mode.operand(right), transposed=True)
    if mode.is_data(left) and right.ndim == 1 and left.ndim >= 2:
        operand = mode.operand(right)
        row = Operand(operand.value[None], operand.use)
        with mode:
            return apply_linear(mode, left, row).squeeze(-1)
    if mode.is_data(right) and left.ndim in (1, 2) and right.ndim >= 2:
        operand = mode.operand(left)
        rows = Operand(torch.atleast_2d(operand.value), operand.use)
        with mode:
            product = apply_linear(mode, right.mT, rows)
            return product.mT if left.ndim == 2 else product.squeeze(-1)
    return _batched(mode, left, right)


def _batched(mode: CaptureMode, left: Tensor, right: Tensor) -> Tensor:
    """A parameter with batch dimensions of its own: several matrices, or a copy for each sample."""
    if left.ndim > 1 and right.ndim > 1 and mode.is_data(left) != mode.is_data(right):
        product = _by_letters(mode, left, right)
        if product is not None:
            return product
    ndim = max(left.ndim, right.ndim)
    for tensor in (left, right):
        if mode.is_data(tensor):
            axis = mode.axis_of(tensor)
            if axis.dim + ndim - tensor.ndim >= ndim - 2:
                raise StrategyRefused("a matrix product over the dimension of the samples")
    left, right = copies_for_broadcast(mode, (left, right))
    with mode:
        return torch.matmul(left, right)


def _by_letters(mode: CaptureMode, left: Tensor, right: Tensor) -> Tensor | None:
    """The same by linear maps, where it is some; what one of the two broadcasts has no letter."""
    batch = string.ascii_lowercase[: max(left.ndim, right.ndim) - 2]
    sizes = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    operands, subscripts = [], []
    for tensor, matrix in ((left, "XY"), (right, "YZ")):
        own = batch[len(batch) - tensor.ndim + 2 :]
        wide = sizes[len(batch) - len(own) :]
        ones = [d for d, size in enumerate(wide) if tensor.shape[d] == 1 and size > 1]
        with mode:
            operands.append(tensor.squeeze(ones) if ones else tensor)
        subscripts.append("".join(c for d, c in enumerate(own) if d not in ones) + matrix)
    if mode.is_data(right):
        operands, subscripts = operands[::-1], subscripts[::-1]
    return as_linear_maps(mode, (subscripts[0], subscripts[1]), f"{batch}XZ", *operands)


def addmm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``beta * input + alpha * mat1 @ mat2``, and the same with batches of matrices."""
    names = ("input", "mat1", "mat2")
    options = renamed(kwargs, batch1="mat1", batch2="mat2", mat="mat1", vec="mat2")
    added, left, right = bound(names, args, options)
    beta, alpha = options.get("beta", 1), options.get("alpha", 1)
    with mode:
        product = left @ right
        return beta * added + (product if alpha == 1 else alpha * product)


def bilinear(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``F.bilinear(input1, input2, weight, bias=None)``."""
    first, second, weight, bias = bound(("input1", "input2", "weight", "bias"), args, kwargs)
    with mode:
        # (…, 1, in1) against (out, in1, in2), then against in2
        half = (first[..., None, None, :] @ weight).squeeze(-2)
        result = (half @ second[..., None]).squeeze(-1)
        return result if bias is None else result + bias


def grouped_mm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``F.grouped_mm(rows, matrices, offs=ends)``: runs of rows by a matrix each, as of experts."""
    x, matrices, ends = bound(
        ("mat_a", "mat_b", "offs"), args, renamed(kwargs, self="mat_a", mat2="mat_b")
    )
    if x.ndim != 2 or matrices.ndim != 3 or ends is None or not mode.is_data(x):
        raise StrategyRefused(f"{function.__name__} of something else than runs of rows")
    if not mode.is_parameter(matrices) or any(kwargs.get(k) is not None for k in _GROUPED_OPTIONS):
        raise StrategyRefused(f"{function.__name__} with more than matrices of parameters")
    stops = ends.tolist()
    axis = mode.axis_of(x)
    if stops[-1:] != [len(x)] or axis.dim != 0:
        raise StrategyRefused(f"{function.__name__} of fewer rows than there are")
    mode.without_samples(ends)
    with mode:
        runs = list(zip([0, *stops], stops, matrices.unbind(), strict=False))
    samples = axis.sample_of_slice()
    products: list[Tensor] = []
    for start, stop, matrix in runs:
        rows, owners = x[start:stop], Owners(samples[start:stop], mode.recorder.n)
        mode.mark(rows, BatchAxis(0, len(rows), owners=owners))
        with mode:
            products.append(rows @ matrix)
    result = torch.cat(products)
    mode.mark(result, axis)
    return result


_GROUPED_OPTIONS = ("bias", "out_dtype")

RULES = (
    dict.fromkeys(spellings("linear"), linear)
    | dict.fromkeys(spellings("matmul", "mm", "bmm", "mv"), matmul)
    | dict.fromkeys(spellings("addmm", "baddbmm", "addmv"), addmm)
    | dict.fromkeys(spellings("bilinear"), bilinear)
    | dict.fromkeys(spellings("grouped_mm", "_grouped_mm"), grouped_mm)
)

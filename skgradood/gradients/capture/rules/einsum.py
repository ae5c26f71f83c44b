"""``einsum``, and the products that are one."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.functions import spellings
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.rules.arguments import bound
from skgradood.gradients.capture.rules.contraction import as_linear_maps
from skgradood.gradients.errors import StrategyRefused


def einsum(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.einsum``: the parameter gets the batch letter as one more subscript."""
    equation, *operands = args
    if not isinstance(equation, str):
        equation, operands = _from_sublists(args)
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    inputs, output = _subscripts(equation, [operand.ndim for operand in operands])
    return contracted(mode, inputs, output, operands)


def contracted(
    mode: CaptureMode, inputs: list[str], output: str, operands: Sequence[Tensor]
) -> Tensor:
    """The sum over all letters that are not in the output, registered as data."""
    data = [k for k, operand in enumerate(operands) if mode.is_data(operand)]
    axes = [mode.axis_of(operands[k]) for k in data]
    letters = {inputs[k][axis.dim] for k, axis in zip(data, axes, strict=True)}
    if len(letters) != 1 or len({axis.at(0) for axis in axes}) != 1:
        raise StrategyRefused("a product of samples that lie along different dimensions")
    (letter,) = letters
    if letter not in output:
        raise StrategyRefused("a product that sums over the samples")
    if any(inputs[k].count(letter) > 1 for k in range(len(operands))) or output.count(letter) > 1:
        raise StrategyRefused("a diagonal over the samples")
    if len(operands) == 2 and len(data) == 1 and _has_no_diagonal(inputs):
        k = data[0]
        product = as_linear_maps(
            mode, (inputs[k], inputs[1 - k]), output, operands[k], operands[1 - k]
        )
        if product is not None:
            return product
    new_inputs, new_operands = [], []
    for subscript, operand in zip(inputs, operands, strict=True):
        if mode.is_parameter(operand):
            subscript, operand = _copied(mode, subscript, operand, letter, axes[0])
        new_inputs.append(subscript)
        new_operands.append(operand)
    result = torch.einsum(f"{','.join(new_inputs)}->{output}", *new_operands)
    mode.mark(result, axes[0].at(output.index(letter)))
    return result


def _has_no_diagonal(inputs: list[str]) -> bool:
    return all(len(set(subscript)) == len(subscript) for subscript in inputs)


def _copied(
    mode: CaptureMode, subscript: str, operand: Tensor, letter: str, axis: BatchAxis
) -> tuple[str, Tensor]:
    if letter in subscript:
        dim = subscript.index(letter)
        return subscript, mode.copies(operand, tuple(operand.shape), axis.at(dim))
    copies = mode.copies(operand, (1, *operand.shape), axis.at(0))
    return letter + subscript, copies


def _subscripts(equation: str, ndims: list[int]) -> tuple[list[str], str]:
    """Subscripts of all operands and of the output, with letters in the place of ellipses."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ndims):
        raise StrategyRefused(f"einsum {equation!r} with {len(ndims)} operands")
    free = [c for c in string.ascii_letters if c not in equation]
    hidden = [
        ndim - len(subscript.replace("...", "")) if "..." in subscript else 0
        for subscript, ndim in zip(inputs, ndims, strict=True)
    ]
    shared = "".join(free[: max(hidden)])
    if not arrow:
        letters = "".join(inputs).replace("...", "")
        output = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        output = f"...{output}" if "..." in left else output
    inputs = [
        subscript.replace("...", shared[len(shared) - n :])
        for subscript, n in zip(inputs, hidden, strict=True)
    ]
    return inputs, output.replace("...", shared)


def _from_sublists(args: tuple) -> tuple[str, list[Tensor]]:
    """``einsum(a, [0, 1], b, [1, 2], [0, 2])`` as an equation."""
    operands, lists = list(args[0::2]), list(args[1::2])
    output = operands.pop() if len(args) % 2 else None
    inputs = ",".join(_letters(sublist) for sublist in lists)
    return inputs if output is None else f"{inputs}->{_letters(output)}", operands


def _letters(sublist: Sequence) -> str:
    return "".join("..." if i is Ellipsis else string.ascii_letters[i] for i in sublist)


def tensordot(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.tensordot(a, b, dims=2)``."""
    a, b, dims = bound(("a", "b", "dims"), args, kwargs)
    dims = 2 if dims is None else dims
    if isinstance(dims, Tensor):
        raise StrategyRefused("tensordot with dimensions in a tensor")
    if isinstance(dims, int):
        dims = range(a.ndim - dims, a.ndim), range(dims)
    of_a, of_b = ([d % t.ndim for d in ds] for t, ds in zip((a, b), dims, strict=True))
    left = list(string.ascii_lowercase[: a.ndim])
    right = list(string.ascii_uppercase[: b.ndim])
    for i, j in zip(of_a, of_b, strict=True):
        right[j] = left[i]
    output = [c for d, c in enumerate(left) if d not in of_a]
    output += [c for d, c in enumerate(right) if d not in of_b]
    return contracted(mode, ["".join(left), "".join(right)], "".join(output), (a, b))


def inner(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.inner``: over the last dimension of both; a product if one is a number."""
    a, b = bound(("input", "other"), args, kwargs)
    if a.ndim == 0 or b.ndim == 0:
        with mode:
            return a * b
    return tensordot(mode, function, (a, b, ([-1], [-1])), {})


def outer(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.outer``, of one number a sample and a vector."""
    a, b = bound(("input", "vec2"), args, kwargs)
    with mode:
        return a.unsqueeze(1) * b.unsqueeze(0)


def chain(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.linalg.multi_dot`` and ``torch.chain_matmul``."""
    matrices = kwargs.get("tensors", args)
    if len(matrices) == 1 and not isinstance(matrices[0], Tensor):
        (matrices,) = matrices
    with mode:
        result = matrices[0]
        for matrix in matrices[1:]:
            result = result @ matrix
        return result


RULES = (
    dict.fromkeys((torch.functional.einsum, torch.einsum), einsum)
    | dict.fromkeys(spellings("tensordot"), tensordot)
    | dict.fromkeys(spellings("inner"), inner)
    | dict.fromkeys(spellings("outer", "ger"), outer)
    | dict.fromkeys(spellings("multi_dot", "chain_matmul"), chain)
)

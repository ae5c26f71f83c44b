"""Products of data and a parameter, summed over dimensions that they share, as linear maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.rules.linear_map import apply_linear

# Of more matrices in a stack each sample gets its copy, rather than each its own product.
_MOST_MATRICES = 256


def as_linear_maps(
    mode: CaptureMode, subscripts: tuple[str, str], output: str, x: Tensor, parameter: Tensor
) -> Tensor | None:
    """The product of data x and a parameter by Einstein's notation, registered as data.

    A letter of the parameter's that is in x and in the output tells one of several matrices, such
    as those of attention's heads or of experts. None where the product is no linear map, as of one
    number with each of several, or is one by very many matrices.

    Parameters
    ----------
    mode : CaptureMode
        Under which the steps are followed.
    subscripts : tuple of str
        Letters of x and of the parameter, none twice in one of them.
    output : str
        Letters of the product.
    x, parameter : Tensor
        Data, and what is made from parameters.
    """
    of_x, of_parameter = subscripts
    sizes = dict(zip(of_parameter, parameter.shape, strict=True))
    shared = [c for c in of_parameter if c in of_x]
    summed, stacked = ([c for c in shared if (c in output) == out] for out in (False, True))
    free = [c for c in of_parameter if c not in shared]
    if not summed or not parameter.numel() or not all(c in output for c in free):
        return None
    if any(sizes[c] != x.shape[of_x.index(c)] for c in shared):  # one is broadcast
        return None
    told_apart = _letters_of_matrices(of_parameter, summed, stacked, free)
    if math.prod(sizes[c] for c in told_apart) > _MOST_MATRICES:
        return None
    if of_x[mode.axis_of(x).dim] in of_parameter:  # a slice for every sample
        return None
    for c in [c for c in of_x if c not in of_parameter and c not in output]:
        with mode:
            x = x.sum(of_x.index(c))
        of_x = of_x.replace(c, "")
    if told_apart:
        return _one_by_one(mode, (of_x, of_parameter), output, x, parameter, told_apart[0])
    return _linear(mode, (of_x, of_parameter), output, x, parameter, len(summed))


def _letters_of_matrices(
    of_parameter: str, summed: list[str], stacked: list[str], free: list[str]
) -> list[str]:
    """Letters that tell matrices of a stack apart: what is left of each lies as a matrix does."""
    letters = list(stacked)
    while [c for c in of_parameter if c not in letters] not in (summed + free, free + summed):
        letters.append(free[0])
        free = free[1:]
    return letters


def _one_by_one(
    mode: CaptureMode,
    subscripts: tuple[str, str],
    output: str,
    x: Tensor,
    parameter: Tensor,
    letter: str,
) -> Tensor:
    """As many products as a letter has places, side by side."""
    of_x, of_parameter = subscripts
    fewer = of_x.replace(letter, ""), of_parameter.replace(letter, "")
    with mode:
        parameters = parameter.unbind(of_parameter.index(letter))
        is_shared = letter in of_x
        xs = x.unbind(of_x.index(letter)) if is_shared else [x] * len(parameters)
    products: list[Tensor] = []
    for own_x, own in zip(xs, parameters, strict=True):
        product = as_linear_maps(mode, fewer, output.replace(letter, ""), own_x, own)
        assert product is not None, "what holds of a stack of matrices holds of each"
        products.append(product)
    with mode:
        return torch.stack(products, output.index(letter))


def _linear(
    mode: CaptureMode,
    subscripts: tuple[str, str],
    output: str,
    x: Tensor,
    parameter: Tensor,
    n_summed: int,
) -> Tensor:
    """One matrix, whose letters are those that are summed over, and those that are free."""
    of_x, of_parameter = subscripts
    sums_first = of_parameter[0] in of_x
    first = n_summed if sums_first else len(of_parameter) - n_summed
    heads, tails = of_parameter[:first], of_parameter[first:]
    summed, free = (heads, tails) if sums_first else (tails, heads)
    kept = [c for c in of_x if c not in summed]
    shape = math.prod(parameter.shape[:first]), math.prod(parameter.shape[first:])
    free_sizes = [parameter.shape[of_parameter.index(c)] for c in free]
    with mode:
        rows = x.permute([of_x.index(c) for c in (*kept, *summed)]).flatten(len(kept))
        matrix = parameter.reshape(shape)
    product = apply_linear(mode, rows, mode.operand(matrix), transposed=sums_first)
    letters = [*kept, *free]
    with mode:
        product = product.reshape(*rows.shape[:-1], *free_sizes)
        return product.permute([letters.index(c) for c in output])

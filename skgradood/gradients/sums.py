"""Sums of squares and of products, to the digits of the numbers and beyond their range."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skgradood.gradients.precision import is_half, sum_dtype, whole_precision

# Dense per-sample gradients are formed in blocks of about this many numbers, to stay in cache.
BLOCK_NUMBERS = 1 << 21

# Rows of more numbers are summed in pieces, on a CPU: of products, of norms.
_LONG_ROW = 4096
_PIECE = 256
_NORM_PIECE = 1024
_SINGLE_OR_DOUBLE = (torch.float32, torch.float64)

# A sum that is a smaller share of its absolute terms than this has lost over three digits, and
# where terms are in half precision, which has three, over one.
_LEAST_SHARE = 2e-3
_LEAST_SHARE_OF_HALVES = 5e-2

# Of squares whose sum is smaller, some may have been below the range of float32.
_LEAST_SUM = 1e-20


def row_blocks(n: int, numbers_a_row: int) -> list[slice]:
    """Divide n rows into slices whose dense gradients stay in cache."""
    size = max(1, BLOCK_NUMBERS // max(1, numbers_a_row))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def sum_of_squares(gradients: Tensor) -> Tensor:
    """Squared norm of every row of (m, ...), in `sum_dtype`: beyond float32 only in float64."""
    flat = gradients if gradients.ndim == 2 else gradients.reshape(gradients.shape[0], -1)
    if flat.dtype not in _SINGLE_OR_DOUBLE:
        flat = torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat
        flat = whole_precision(flat) if flat.is_cpu else flat
    if not flat.is_cpu:
        return _summed_norm(flat).square()
    norms = _squared_norms_by_pieces(flat)
    if not in_range(norms):
        lost = out_of_range(norms) & is_nonzero(flat)
        norms[lost] = _summed_norm(flat[lost]).square()
    return norms


def in_range(sums: Tensor) -> bool:
    """Whether no squares, of which these are sums, can have left the range of float32."""
    least, largest = torch.aminmax(sums)
    return least.item() >= _LEAST_SUM and largest.item() < math.inf


def out_of_range(sums: Tensor) -> Tensor:
    """By sums of squares, which of them may miss some that left the range of float32."""
    return (sums < _LEAST_SUM) | ~sums.isfinite()


def least_share(factor: Tensor) -> float:
    """The share of its absolute terms above which a sum of such numbers' products is trusted."""
    return _LEAST_SHARE_OF_HALVES if is_half(factor) else _LEAST_SHARE


def is_nonzero(rows: Tensor) -> Tensor:
    """Which rows of (m, ...) have a number other than zero, (m,) bool."""
    return rows.flatten(1).any(1)


def _squared_norms_by_pieces(flat: Tensor) -> Tensor:
    """Squared norms of rows, (m,) float64, without a copy of the rows in float64.

    Pieces of long rows add in their own precision.
    """
    if flat.shape[1] <= _LONG_ROW:
        return torch.linalg.vector_norm(flat, dim=1).double().square_()
    whole = flat.shape[1] - flat.shape[1] % _NORM_PIECE
    pieces = flat[:, :whole].unflatten(1, (-1, _NORM_PIECE))
    squares = torch.linalg.vector_norm(pieces, dim=2).double().square().sum(1)
    return squares + torch.linalg.vector_norm(flat[:, whole:], dim=1).double().square()


def _summed_norm(flat: Tensor) -> Tensor:
    return torch.linalg.vector_norm(flat, dim=1, dtype=sum_dtype(flat.device))


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise inner product of (m, k): products in the dtype given, summed in `sum_dtype`.

    Long rows are summed in short pieces first, which halves the time and costs no digit.
    """
    k, wide = a.shape[1], sum_dtype(a.device)
    if a.dtype == torch.float64 or k <= _LONG_ROW:
        return (a * b).sum(1, dtype=wide)
    whole = k - k % _PIECE
    pieces = (a[:, :whole] * b[:, :whole]).reshape(len(a), -1, _PIECE).sum(2)
    tail = (a[:, whole:] * b[:, whole:]).sum(1, dtype=wide)
    return pieces.sum(1, dtype=wide) + tail

"""Weighted sums of squares, row by row: quadratic forms in coordinates that diagonalise them."""

from __future__ import annotations

import torch
from torch import Tensor

# Longer rows are summed in pieces of this length, and the pieces in float64.
_PIECE = 256
_LONG_ROW = 4096


def weighted_sum_of_squares(rows: Tensor, weights: Tensor) -> Tensor:
    """Σ_j w_j r_ij² of every row, in one pass over the squares.

    Parameters
    ----------
    rows : Tensor of shape (m, ...)
        In float32 or float64; what squares beyond its range is kept.
    weights : Tensor of shape (...)
        Not negative, of the same dtype.

    Returns
    -------
    Tensor of shape (m,), float64
    """
    flat, weights = rows.reshape(len(rows), -1), weights.reshape(-1)
    if flat.shape[1] <= _LONG_ROW:
        return flat.double().square() @ weights.double()
    if not flat.is_cpu:  # where looking for rows that overflow would make the device wait
        weighted = flat * weights.sqrt()
        return torch.linalg.vector_norm(weighted, dim=1, dtype=torch.float64).square()
    squares = flat.square()
    whole = flat.shape[1] - flat.shape[1] % _PIECE
    pieces = torch.einsum(
        "mpk,pk->mp",
        squares[:, :whole].unflatten(1, (-1, _PIECE)),
        weights[:whole].unflatten(0, (-1, _PIECE)),
    )
    sums = pieces.sum(1, dtype=torch.float64)
    if whole < flat.shape[1]:
        sums = sums + (squares[:, whole:] * weights[whole:]).sum(1, dtype=torch.float64)
    for row in (~sums.isfinite()).nonzero()[:, 0].tolist():
        sums[row] = flat[row].double().square() @ weights.double()
    return sums

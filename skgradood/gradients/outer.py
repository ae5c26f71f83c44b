"""Sums of squared coordinates of outer products, which are never formed.

A layer that meets one position of every sample has the gradient l rᵀ. A sum of its squares with
weights W is a bilinear form, (l²)ᵀ W r², of which those of many samples are one matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skgradood.gradients.precision import widened
from skgradood.gradients.squares import is_in_range
from skgradood.gradients.sums import in_range, out_of_range


def weighted_sums_of_outer_squares(
    left: Tensor, right: Tensor, weights: Tensor, *, with_norms: bool = False
) -> Tensor:
    """Σ_jk w_jk l_ij² r_ik² of every sample, after Σ_jk l_ij² r_ik² if that is wanted.

    Parameters
    ----------
    left, right : Tensor of shape (m, p) and (m, q)
        Factors in float32 or float64; what squares beyond its range is kept.
    weights : Tensor of pq numbers
        Not negative.
    with_norms : bool, default=False
        Whether to return squared norms, too.

    Returns
    -------
    Tensor of shape (1, m) or (2, m), in the device's `sum_dtype`
    """
    w = weights.reshape(left.shape[1], right.shape[1])
    if not left.is_cpu:  # where looking for rows that overflow would make the device wait
        return _forms(widened(left), widened(right), w, with_norms)
    sums = _forms(left, right, w, with_norms)
    if not in_range(sums):
        lost = out_of_range(sums).any(0)
        sums[:, lost] = _forms(left[lost].double(), right[lost].double(), w, with_norms)
    return sums


def sum_of_outer_squares_over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Σ_i l_ij² r_ik² of every coordinate, (p, q); left is (m, p), right (m, q)."""
    total = left.square().mT @ right.square()
    if not left.is_cpu or is_in_range(total):
        return total
    return left.double().square().mT @ right.double().square()


def _forms(left: Tensor, right: Tensor, weights: Tensor, with_norms: bool) -> Tensor:
    squares = left.square(), right.square()
    form = widened(torch.linalg.vecdot(squares[0] @ weights.to(left.dtype), squares[1]))
    if not with_norms:
        return form[None]
    norms = [widened(side.sum(1)) for side in squares]
    return torch.stack([norms[0] * norms[1], form])

"""Sums of squared coordinates of outer products, which are never formed.

A layer that meets one position of every sample has the gradient l rᵀ. A sum of its squares with
weights W is a bilinear form, (l²)ᵀ W r², of which those of many samples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skgradood.gradients.precision import sum_dtype, widened
from skgradood.gradients.squares import is_in_range
from skgradood.gradients.sums import in_range, out_of_range


def weighted_sums_of_outer_squares(
    left: Tensor, right: Tensor, weights: Sequence[Tensor | None]
) -> Tensor:
    """Σ_jk w_jk l_ij² r_ik² of every sample, for several weights.

    Parameters
    ----------
    left, right : Tensor of shape (m, p) and (m, q)
        Factors in float32 or float64; what squares beyond its range is kept.
    weights : sequence of (Tensor of pq numbers, or None)
        Not negative. None: all one.

    Returns
    -------
    Tensor of shape (number of weights, m), in the device's `sum_dtype`
    """
    if not left.is_cpu:  # where looking for rows that overflow would make the device wait
        return _forms(widened(left), widened(right), weights)
    sums = _forms(left, right, weights)
    if not in_range(sums):
        lost = out_of_range(sums).any(0)
        sums[:, lost] = _forms(left[lost].double(), right[lost].double(), weights)
    return sums


def sum_of_outer_squares_over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Σ_i l_ij² r_ik² of every coordinate, (p, q); left is (m, p), right (m, q)."""
    total = left.square().mT @ right.square()
    if not left.is_cpu or is_in_range(total):
        return total
    return left.double().square().mT @ right.double().square()


def _forms(left: Tensor, right: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    wide = sum_dtype(left.device)
    forms = torch.zeros(len(weights), len(left), dtype=wide, device=left.device)
    squares = left.square(), right.square()
    for form, w in zip(forms, weights, strict=True):
        if w is None:
            torch.mul(*(widened(torch.linalg.vecdot(f, f)) for f in (left, right)), out=form)
        else:
            matrix = w.reshape(left.shape[1], -1).to(left.dtype)
            form.copy_(torch.linalg.vecdot(squares[0] @ matrix, squares[1]))
    return forms

"""Gradients of parameters that meet data only through what is computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skgradood.gradients.contributions import Contribution
from skgradood.gradients.outer import weighted_sums_of_outer_squares
from skgradood.gradients.precision import whole_precision, widened
from skgradood.gradients.squares import Products, Rows, weighted_sums_of_squares
from skgradood.gradients.sums import row_blocks


@dataclass
class JacobianContribution(Contribution):
    """Gradients cJ that reach a leaf through a parameter-only graph with few outputs.

    ``coefficients`` is (n, q), one row a sample; ``jacobian`` (q, *shape).
    """

    coefficients: Tensor
    jacobian: Tensor

    def __post_init__(self) -> None:
        self.n = len(self.coefficients)
        self.shape = self.jacobian.shape[1:]

    def dense(self, rows: slice) -> Tensor:
        flat = self.coefficients[rows] @ self.jacobian.reshape(len(self.jacobian), -1)
        return flat.reshape(len(flat), *self.shape)


@dataclass
class ScaledContribution(Contribution):
    """Gradients that reach a leaf through a function of its elements, such as a mask.

    ``derived`` is what the function's value receives, ``scale`` the function's derivative, of the
    leaf's shape.
    """

    derived: Contribution
    scale: Tensor

    def __post_init__(self) -> None:
        self.n = self.derived.n
        self.shape = self.scale.shape

    def dense(self, rows: slice) -> Tensor:
        return self.derived.dense(rows) * self.scale

    def squared_norm(self) -> Tensor:
        weights = [widened(self.scale).square()]
        layout = self.derived.factor_layout()
        if layout is None or layout.groups > 1 or not self.derived.prefers_factors():
            blocks = row_blocks(self.n, self.derived.numbers_a_row())
            parts = [Rows(whole_precision(self.derived.dense(rows))) for rows in blocks]
            norms = [weighted_sums_of_squares(part, weights) for part in parts]
            return torch.cat(norms, dim=1)[0]
        numbers = layout.positions * (self.shape[0] + self.shape[1:].numel())
        norms = []
        for rows in row_blocks(self.n, numbers):
            left, right = (whole_precision(f[:, 0]) for f in self.derived.factors(rows))
            if layout.positions == 1:
                factors = left[..., 0], right[..., 0]
                norms.append(weighted_sums_of_outer_squares(*factors, weights))
            else:
                norms.append(weighted_sums_of_squares(Products(left, right), weights))
        return torch.cat(norms, dim=1)[0]

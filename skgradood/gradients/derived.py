"""Gradients of parameters that meet data only through what is computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skgradood.gradients.contributions import (
    Contribution,
    FactorLayout,
    ProductContribution,
    dense_where_distrusted,
)
from skgradood.gradients.costs import COPIED, WRITTEN
from skgradood.gradients.outer import weighted_sums_of_outer_squares
from skgradood.gradients.precision import whole_precision, widened
from skgradood.gradients.squares import Products, Rows, weighted_sums_of_squares
from skgradood.gradients.sums import (
    inner_products,
    is_nonzero,
    least_share,
    out_of_range,
    row_blocks,
)


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
        weights = widened(self.scale).square()
        layout = self.derived.factor_layout()
        if layout is None or layout.groups > 1 or not self._is_quicker_in_blocks(layout):
            blocks = row_blocks(self.n, self.derived.numbers_a_row())
            parts = [Rows(whole_precision(self.derived.dense(rows))) for rows in blocks]
            return torch.cat([weighted_sums_of_squares(part, weights) for part in parts], dim=1)[0]
        numbers = layout.positions * (self.shape[0] + self.shape[1:].numel())
        norms: list[Tensor] = []
        for rows in row_blocks(self.n, numbers):
            left, right = (whole_precision(f[:, 0]) for f in self.derived.factors(rows))
            if layout.positions == 1:
                factors = left[..., 0], right[..., 0]
                norms.append(weighted_sums_of_outer_squares(*factors, weights))
            else:
                norms.append(weighted_sums_of_squares(Products(left, right), weights))
        return torch.cat(norms, dim=1)[0]

    def cost(self) -> float:
        return self.derived.cost() + WRITTEN * self.shape.numel()

    def _is_quicker_in_blocks(self, layout: FactorLayout) -> bool:
        """Whether products of factors, which are not kept, are quicker than the gradient formed."""
        in_blocks = COPIED * layout.copied + layout.positions * self.shape.numel()
        return in_blocks < self.derived.cost()


@dataclass
class NormedContribution(ProductContribution):
    """Gradients of the direction v of a weight norm w = g v / ‖v‖ that rows meet once.

    The norm is taken over all dimensions but the first.

    With u = v / ‖v‖ and the gradient G of w, row by row ∂v = (g / ‖v‖) (G - ⟨G, u⟩ u): what G has
    along the direction is the gradient of g.

    ``derived``, an outer product a row, is what w receives, ``units`` (out, k) are the rows u, and
    ``ratios`` (out,) are g / ‖v‖. ``shape`` is that of v.
    """

    derived: Contribution
    units: Tensor
    ratios: Tensor
    shape: torch.Size

    def __post_init__(self) -> None:
        self.n = self.derived.n

    def dense(self, rows: slice) -> Tensor:
        gradients = self.derived.dense(rows).flatten(2)
        along = (gradients * self.units).sum(2, keepdim=True)
        across = (gradients - along * self.units) * self.ratios[:, None]
        return across.reshape(len(across), *self.shape)

    def numbers_a_row(self) -> int:
        return self.derived.numbers_a_row()

    def squared_norm(self) -> Tensor:
        left, right = self._factors()
        if not left.is_cpu:  # where looking for what cancels would make the device wait
            return self._terms(widened(left), widened(right))[0].clamp_min(0)
        norms, bound = self._terms(left, right)
        trusted = (norms >= least_share(right) * bound) & ~out_of_range(norms)
        return dense_where_distrusted(self, norms, trusted)

    def _terms(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms, and what they would be without that along the direction."""
        squares, along = right.square().sum(1, keepdim=True), right @ self.units.to(right.dtype).mT
        weights = (left * self.ratios).square()
        norms = inner_products(weights, squares - along.square())
        return norms, inner_products(weights, squares.expand_as(weights))

    def sizes(self) -> Tensor:
        """Gradients of g, (n, out)."""
        left, right = self._factors()
        return left * (right @ self.units.mT)

    def is_nonzero(self) -> Tensor:
        left, right = self._factors()
        return is_nonzero(left) & is_nonzero(right)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Factors (n, out) and (n, k)."""
        left, right = self.derived.factors(slice(None))
        return whole_precision(left[:, 0, :, 0]), whole_precision(right[:, 0, :, 0])


def is_outer_product(contribution: Contribution) -> bool:
    """Whether gradients are products of two vectors each, as where rows meet a linear map."""
    layout = contribution.factor_layout()
    return layout is not None and layout.groups == layout.positions == 1

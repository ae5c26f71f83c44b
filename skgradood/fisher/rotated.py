"""Approximations that are diagonal in a Kronecker product of bases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skgradood.fisher.approximation import Approximation, FisherOptions
from skgradood.fisher.basis import KroneckerBasis
from skgradood.fisher.factors import usable_layout
from skgradood.gradients import LayerGradient
from skgradood.gradients.costs import COPIED, SQUARED, ReadingCosts
from skgradood.gradients.outer import (
    sum_of_outer_squares_over_rows,
    weighted_sums_of_outer_squares,
)
from skgradood.gradients.precision import sum_dtype, widened
from skgradood.gradients.squares import (
    SHORT_ROW,
    Products,
    Rows,
    accumulated,
    slices,
    sum_of_squares_over_rows,
    weighted_sums_of_squares,
)
from skgradood.gradients.sums import BLOCK_NUMBERS

# Rotations in float32 leave about this share of the largest eigenvalue in a dead coordinate.
_ROUNDING = 1e-12
# Numbers in the factors of outer products at once.
_OUTER_BLOCK = 1 << 17


class Rotated(Approximation):
    """An approximation U diag(λ) Uᵀ, with U a Kronecker product of bases.

    Attributes
    ----------
    basis : KroneckerBasis
        U, once it is known.
    eigenvalues : Tensor of shape ``basis.sizes``, float64
        λ without damping, once complete. Coordinates in which no sample has a gradient, up to
        rounding, have zeros.
    """

    basis: KroneckerBasis
    eigenvalues: Tensor

    def __init__(self, name: str, shape: tuple[int, ...], options: FisherOptions) -> None:
        super().__init__(name, shape, options)
        self._converted: dict[tuple, Any] = {}

    def quadratic_form(self, gradient: LayerGradient) -> Tensor:
        return self._forms(gradient, with_norms=False)[0]

    def whitened(self, gradients: Tensor) -> Tensor:
        basis = self._basis_for(gradients)
        coordinates = basis.rotate(gradients) * self._inverse_for(gradients).sqrt()
        return basis.rotate_back(coordinates).reshape(gradients.shape)

    def effective_dims(self) -> Tensor:
        return self.basis.squared().rotate_back(self._shares()[None]).reshape(self.shape)

    def effective_dim(self) -> float:
        return float(self._shares().sum())

    def trace(self) -> float:
        return float(self.eigenvalues.sum())

    def costs_of_form(self, gradient: LayerGradient) -> ReadingCosts:
        coordinates = self.basis.n_coordinates
        formed = self.basis.cost() + SQUARED * coordinates
        layout = usable_layout(gradient, self.basis.sizes)
        if layout is None:
            return ReadingCosts(math.inf, formed)
        # Of outer products, sums of squares need no coordinates.
        squared = SQUARED * coordinates if layout.positions > 1 else 0.0
        factors = COPIED * layout.copied + self.basis.cost_of_factors(layout)
        return ReadingCosts(factors + layout.positions * coordinates + squared, formed)

    def _forms(self, gradient: LayerGradient, *, with_norms: bool) -> Tensor:
        """Squared norms of the coordinates if wanted, and quadratic forms, (1 or 2, n)."""
        if not gradient.contributions:
            shape = (1 + with_norms, gradient.n)
            return torch.zeros(shape, dtype=sum_dtype(gradient.device), device=gradient.device)
        if not self._has_factors(gradient):
            coordinates = self._coordinates(gradient)
            inverse = self._inverse_for(coordinates.like)
            return weighted_sums_of_squares(coordinates, inverse, with_norms=with_norms)
        parts = []
        for left, right in self._rotated_factors(gradient):
            inverse = self._inverse_for(left)
            if left.shape[2] > 1:
                products = Products(left, right)
                parts.append(weighted_sums_of_squares(products, inverse, with_norms=with_norms))
            else:
                factors = left[..., 0], right[..., 0]
                parts.append(
                    weighted_sums_of_outer_squares(*factors, inverse, with_norms=with_norms)
                )
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _has_factors(self, gradient: LayerGradient) -> bool:
        """Whether a gradient has factors that can be rotated, and so is read by them."""
        return usable_layout(gradient, self.basis.sizes) is not None

    def _coordinates(self, gradient: LayerGradient) -> Rows:
        gradients = self._formed(gradient)
        return Rows(self._basis_for(gradients).rotate(gradients))

    def _formed(self, gradient: LayerGradient) -> Tensor:
        """Gradients (n, *shape); those of vectors in `sum_dtype` where it costs nothing.

        And where, without damping, rounding would fill a null space.
        """
        gradients, sizes = gradient.dense(), self.basis.sizes
        is_wide = len(sizes) == 1 and (sizes[0] <= SHORT_ROW or self.options.damping == 0)
        return widened(gradients) if is_wide else gradients

    def _basis_for(self, like: Tensor | LayerGradient) -> KroneckerBasis:
        """The basis in the dtype, and on the device, of a tensor or gradient."""
        key = ("basis", like.dtype, like.device)
        if key not in self._converted:
            self._converted[key] = self.basis.to(like)
        return self._converted[key]

    def _inverse_for(self, like: Tensor) -> Tensor:
        """The weights of squared coordinates, likewise."""
        key = ("inverse", like.dtype, like.device)
        if key not in self._converted:
            inverse = self.options.inverse(self.eigenvalues)
            self._converted[key] = inverse.to(device=like.device, dtype=like.dtype)
        return self._converted[key]

    def _shares(self) -> Tensor:
        """λ/(λ + δ), with zeros where λ and δ are zero."""
        damped = self.options.damped(self.eigenvalues)
        return torch.where(damped > 0, self.eigenvalues / damped, 0.0)

    def _set_eigenvalues(self, eigenvalues: Tensor) -> None:
        self.eigenvalues = eigenvalues
        self._converted = {}
        self.complete = True

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_converted": {}}

    def _rotated_factors(self, gradient: LayerGradient) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of coordinates as factors left (m, p, t) and right (m, q, t)."""
        _, positions, *_ = gradient.factor_layout() or (1, 1)
        numbers = positions * (self.basis.sizes[0] + math.prod(self.basis.sizes[1:]))
        # Many positions make a product of matrices of one sample alone; of one position each,
        # samples come in blocks of which everything that is made of them stays in the cache.
        block = BLOCK_NUMBERS if positions > 1 else _OUTER_BLOCK
        for rows in slices(gradient.n, block // numbers):
            factors = gradient.factors(rows, self._basis_for(gradient).channels)
            left, right = self._basis_for(factors.left).rotate_factors(factors)
            yield left[:, 0], right[:, 0]

    def _squares(self, gradient: LayerGradient) -> Tensor:
        """Σ over samples of squared coordinates, ``basis.sizes``."""
        if not self._has_factors(gradient):
            return sum_of_squares_over_rows(self._coordinates(gradient)).reshape(self.basis.sizes)
        total: Tensor | None = None
        for left, right in self._rotated_factors(gradient):
            if left.shape[2] == 1:
                squares = sum_of_outer_squares_over_rows(left[..., 0], right[..., 0])
            else:
                squares = sum_of_squares_over_rows(Products(left, right))
            total = accumulated(total, squares)
        assert total is not None
        return total.reshape(self.basis.sizes)


def without_rounding(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues, with zeros for what is only rounding."""
    if eigenvalues.numel() == 0:
        return eigenvalues
    return torch.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0)

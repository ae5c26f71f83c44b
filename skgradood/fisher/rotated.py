"""Approximations that are diagonal in a Kronecker product of bases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skgradood.fisher.approximation import Approximation, FisherOptions
from skgradood.fisher.basis import KroneckerBasis
from skgradood.fisher.squares import weighted_sum_of_squares
from skgradood.gradients import LayerGradient
from skgradood.gradients.contributions import row_blocks

# Rotations in float32 leave about this share of the largest eigenvalue in a dead coordinate.
_ROUNDING = 1e-12


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
        if not gradient.contributions:
            return torch.zeros(gradient.n, dtype=torch.float64, device=gradient.device)
        if not self.form_reads_factors(gradient):
            gradients = self._formed(gradient)
            coordinates = self._basis_for(gradients).rotate(gradients)
            return weighted_sum_of_squares(coordinates, self._inverse_for(gradients))
        return torch.cat([self._form_of(*factors) for factors in self._rotated_factors(gradient)])

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

    def sums_read_factors(self, gradient: LayerGradient) -> bool:
        return self.form_reads_factors(gradient)

    def form_reads_factors(self, gradient: LayerGradient) -> bool:
        layout = gradient.factor_layout()
        if layout is None or layout.groups > 1 or len(self.basis.sizes) == 1:
            return False
        if layout.positions == 1:
            return True
        return self.basis.products_of_factors(layout.positions) < self.basis.products()

    def _formed(self, gradient: LayerGradient) -> Tensor:
        """Gradients (n, *shape); those of vectors in float64, which costs little there."""
        gradients = gradient.dense()
        return gradients.double() if len(self.basis.sizes) == 1 else gradients

    def _form_of(self, left: Tensor, right: Tensor) -> Tensor:
        """Forms of gradients whose coordinates have these factors, (m, p, t) and (m, q, t)."""
        weights = self._inverse_for(left).reshape(self.basis.sizes[0], -1)
        if left.shape[2] > 1:
            return weighted_sum_of_squares(left @ right.mT, weights)
        squares, others = (factor[..., 0].double().square() for factor in (left, right))
        return ((squares @ weights.double()) * others).sum(1)

    def _basis_for(self, like: Tensor) -> KroneckerBasis:
        """The basis in the dtype, and on the device, of a tensor."""
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
        _, positions = gradient.factor_layout() or (1, 1)
        sizes = self.basis.sizes
        numbers = sum(sizes)
        if positions > 1:
            numbers = max(math.prod(sizes), positions * math.prod(sizes[1:]))
        for rows in row_blocks(gradient.n, numbers):
            factors = gradient.factors(rows)
            left, right = self._basis_for(factors.left).rotate_factors(factors)
            yield left[:, 0], right[:, 0]

    def _squares(self, gradient: LayerGradient) -> Tensor:
        """Σ over samples of squared coordinates, ``basis.sizes``, float64."""
        if not self.form_reads_factors(gradient):
            gradients = self._formed(gradient)
            coordinates = self._basis_for(gradients).rotate(gradients)
            return _sum_of_squares(coordinates)
        total = torch.zeros((), dtype=torch.float64, device=gradient.device)
        for left, right in self._rotated_factors(gradient):
            if left.shape[2] == 1:
                total = total + (left[..., 0].square().mT @ right[..., 0].square()).double()
            else:
                total = total + _sum_of_squares(left @ right.mT)
        return total.reshape(self.basis.sizes)


def _sum_of_squares(coordinates: Tensor) -> Tensor:
    """Over rows, in float64; of a single row as they are."""
    squares = coordinates.square()
    return squares[0] if len(squares) == 1 else squares.sum(0, dtype=torch.float64)


def without_rounding(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues, with zeros for what is only rounding."""
    return torch.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0)

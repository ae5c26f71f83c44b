"""Approximations that are diagonal in a Kronecker product of bases."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from skgradood.fisher.approximation import Approximation
from skgradood.fisher.basis import KroneckerBasis
from skgradood.gradients import LayerGradient
from skgradood.gradients.contributions import row_blocks, sum_of_squares

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

    def quadratic_form(self, gradient: LayerGradient) -> Tensor:
        if not gradient.contributions:
            return torch.zeros(gradient.n, dtype=torch.float64, device=gradient.device)
        weights = self._inverse_root().to(gradient.device)
        if not self.form_reads_factors(gradient):
            coordinates = self.basis.rotate(gradient.dense())
            return sum_of_squares(coordinates * weights.to(coordinates.dtype))
        weights = weights.reshape(self.basis.sizes[0], -1)
        forms = []
        for left, right in self._rotated_factors(gradient):
            if left.shape[2] == 1:
                squares, others = (factor[..., 0].double().square() for factor in (left, right))
                forms.append(((squares @ weights.square()) * others).sum(1))
            else:
                forms.append(sum_of_squares((left @ right.mT) * weights.to(left.dtype)))
        return torch.cat(forms)

    def whitened(self, gradients: Tensor) -> Tensor:
        coordinates = self.basis.rotate(gradients)
        scaled = coordinates * self._inverse_root().to(coordinates)
        return self.basis.rotate_back(scaled).reshape(gradients.shape)

    def effective_dim(self) -> float:
        damped = self.options.damped(self.eigenvalues)
        return float(torch.where(damped > 0, self.eigenvalues / damped, 0.0).sum())

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

    def _inverse_root(self) -> Tensor:
        damped = self.options.damped(self.eigenvalues)
        return torch.where(damped > 0, damped.rsqrt(), 0.0)

    def _rotated_factors(self, gradient: LayerGradient) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of coordinates as factors left (m, p, t) and right (m, q, t)."""
        _, positions = gradient.factor_layout() or (1, 1)
        sizes = self.basis.sizes
        numbers = sum(sizes)
        if positions > 1:
            numbers = max(math.prod(sizes), positions * math.prod(sizes[1:]))
        for rows in row_blocks(gradient.n, numbers):
            left, right = self.basis.rotate_factors(gradient.factors(rows))
            yield left[:, 0], right[:, 0]

    def _squares(self, gradient: LayerGradient) -> Tensor:
        """Σ over samples of squared coordinates, ``basis.sizes``, float64."""
        if not self.form_reads_factors(gradient):
            coordinates = self.basis.rotate(gradient.dense())
            return coordinates.square().sum(0, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64, device=gradient.device)
        for left, right in self._rotated_factors(gradient):
            if left.shape[2] == 1:
                total = total + (left[..., 0].square().mT @ right[..., 0].square()).double()
            else:
                total = total + (left @ right.mT).square().sum(0, dtype=torch.float64)
        return total.reshape(self.basis.sizes)


def without_rounding(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues, with zeros for what is only rounding."""
    return torch.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0)

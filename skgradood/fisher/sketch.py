"""The full second moments of a random projection."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from skgradood.fisher.approximation import FisherOptions
from skgradood.fisher.basis import KroneckerBasis, eigenbasis
from skgradood.fisher.rotated import Rotated, without_rounding
from skgradood.fisher.views import mode_sizes
from skgradood.gradients import LayerGradient
from skgradood.gradients.precision import in_float64, sum_dtype
from skgradood.gradients.squares import Rows, weighted_sums_of_squares

_NO_COORDINATES = "the coordinates of a sketch are not the parameter's own"


class Sketch(Rotated):
    """The exact Fisher matrix of a seeded random projection S g of the gradient.

    S is a Kronecker product of matrices with orthonormal rows in random directions, one a mode,
    so that it costs little to store and to apply. The statistic (S g)ᵀ (S F Sᵀ)⁻¹ S g keeps all
    correlations between the coordinates that remain.
    """

    key = "sketch"
    has_channels = False
    directions: Tensor

    def __init__(self, name: str, shape: tuple[int, ...], options: FisherOptions) -> None:
        super().__init__(name, shape, options)
        sizes = mode_sizes(shape, options.max_factor_size)
        self.basis = _random_basis(sizes, options.sketch_size, _seed(name, options.random_state))
        self.size = math.prod(v.shape[1] for v in self.basis.vectors if v is not None)

    def _terms(self, gradient: LayerGradient) -> dict[str, Tensor]:
        sketched = in_float64(self._sketched(gradient))  # float32 would fill the null space
        return {"moments": sketched.mT @ sketched}

    def finalize(self) -> None:
        values, self.directions = eigenbasis(self._mean("moments", (self.size, self.size)))
        self._set_eigenvalues(without_rounding(values))

    def quadratic_form(self, gradient: LayerGradient) -> Tensor:
        if not gradient.contributions:
            return torch.zeros(gradient.n, dtype=sum_dtype(gradient.device), device=gradient.device)
        sketched = self._sketched(gradient)
        coordinates = sketched @ self.directions.to(sketched)
        return weighted_sums_of_squares(Rows(coordinates), self._inverse_for(sketched))[0]

    def whitened(self, gradients: Tensor) -> Tensor:
        raise ValueError(_NO_COORDINATES)

    def effective_dims(self) -> Tensor:
        raise ValueError(_NO_COORDINATES)

    def _sketched(self, gradient: LayerGradient) -> Tensor:
        """(n, size)."""
        if not self._has_factors(gradient):
            gradients = self._formed(gradient)
            return self._basis_for(gradients).rotate(gradients).flatten(1)
        parts = [left @ right.mT for left, right in self._rotated_factors(gradient)]
        return torch.cat(parts).flatten(1)


def _random_basis(sizes: tuple[int, ...], size: int, seed: int) -> KroneckerBasis:
    """Random orthonormal columns for every mode, ``size`` products of them at most."""
    generator = torch.Generator().manual_seed(seed)
    vectors: dict[int, Tensor] = {}
    left = size
    # The smallest modes first: what they do not use is left to the others.
    for mode in sorted(range(len(sizes)), key=lambda mode: sizes[mode]):
        share = int(left ** (1 / (len(sizes) - len(vectors))) + 1e-9)
        share = min(sizes[mode], max(1, share))
        gaussian = torch.randn(sizes[mode], share, dtype=torch.float64, generator=generator)
        vectors[mode] = torch.linalg.qr(gaussian).Q
        left //= max(1, share)
    return KroneckerBasis(sizes, tuple(vectors[mode] for mode in range(len(sizes))))


def _seed(name: str, random_state: int) -> int:
    return zlib.crc32(f"{random_state}:{name}".encode())

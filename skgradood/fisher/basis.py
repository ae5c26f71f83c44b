"""Orthonormal bases of parameter tensors that are products of one basis a mode."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from skgradood.gradients import LayerGradient
from skgradood.gradients.contributions import FactorLayout, Factors
from skgradood.gradients.costs import WRITTEN

# Columns of a matrix below which products with it are slow.
_THIN = 32


@dataclass(frozen=True)
class KroneckerBasis:
    """The basis U₁ ⊗ … ⊗ U_k of tensors with modes of given sizes.

    Attributes
    ----------
    sizes : tuple of int
        Sizes of the modes.
    vectors : tuple of (Tensor or None)
        Basis vectors of each mode as columns, (size, size) or fewer columns; None for a mode
        that is left as it is.
    """

    sizes: tuple[int, ...]
    vectors: tuple[Tensor | None, ...]

    def rotate(self, gradients: Tensor) -> Tensor:
        """Coordinates (m, *sizes) of gradients (m, ...)."""
        result = gradients.reshape(len(gradients), *self.sizes)
        for mode, vectors in enumerate(self.vectors):
            if vectors is not None:
                result = _along(result, mode, vectors)
        return result

    def rotate_back(self, coordinates: Tensor) -> Tensor:
        """Gradients (m, *sizes) of coordinates (m, ...)."""
        result = coordinates
        for mode, vectors in enumerate(self.vectors):
            if vectors is not None:
                result = _along(result, mode, vectors.mT)
        return result

    @property
    def channels(self) -> Tensor | None:
        """Basis of the second of three modes, the channels under a kernel."""
        return self.vectors[1] if len(self.sizes) == 3 else None

    def rotate_factors(self, factors: Factors) -> Factors:
        """Factors of the coordinates, for gradients without groups of channels.

        `channels` have been rotated before, where there are patches before they are taken.
        """
        left, right = factors
        first, *others = self.vectors
        if first is not None:
            left = _along(left, 1, first)
        if self.channels is not None:
            others[0] = None
        if all(vectors is None for vectors in others):
            return Factors(left, right)
        m, groups, q, positions = right.shape
        last = self.sizes[2:]
        modes = right.reshape(m * groups, q // math.prod(last), *last, positions)
        for mode, vectors in enumerate(others):
            if vectors is not None:
                modes = _along(modes, mode, vectors)
        return Factors(left, modes.reshape(m, groups, -1, positions))

    def squared(self) -> KroneckerBasis:
        """Squares of the basis vectors' entries, which carry variances between coordinates."""
        return KroneckerBasis(
            self.sizes, tuple(v if v is None else v.square() for v in self.vectors)
        )

    @property
    def n_coordinates(self) -> int:
        """Numbers in the coordinates of one gradient."""
        return math.prod(
            size if vectors is None else vectors.shape[1]
            for size, vectors in zip(self.sizes, self.vectors, strict=True)
        )

    def cost(self) -> float:
        """What rotating one formed gradient takes, see `skgradood.gradients.costs`."""
        return math.prod(self.sizes) * sum(self._costs())

    def cost_of_factors(self, layout: FactorLayout) -> float:
        """What rotating one sample's factors takes."""
        first, *others = self._costs()
        q = math.prod(self.sizes[1:])
        channels = 0.0
        if self.channels is not None:  # they are rotated before patches are taken
            channels = layout.places * self.sizes[1] * others[0]
            others, q = others[1:], self.channels.shape[1] * self.sizes[2]
        return channels + layout.positions * (self.sizes[0] * first + q * sum(others))

    def to(self, like: Tensor | LayerGradient) -> KroneckerBasis:
        """The basis in the dtype, and on the device, of a tensor or gradient."""
        vectors = (
            v if v is None else v.to(device=like.device, dtype=like.dtype) for v in self.vectors
        )
        return KroneckerBasis(self.sizes, tuple(vectors))

    def _costs(self) -> list[float]:
        """What a number takes to be rotated along each mode."""
        return [0.0 if v is None else v.shape[1] + WRITTEN for v in self.vectors]


def _along(gradients: Tensor, mode: int, vectors: Tensor) -> Tensor:
    """Contract mode ``mode`` of (m, *sizes) with the rows of (size, k).

    One product of large matrices is several times as quick as one for every thin matrix, and
    worth a copy of these where they are very thin.
    """
    dim = mode + 1
    if dim == gradients.ndim - 1:
        if dim > 1 and len(vectors) < _THIN <= gradients.shape[dim - 1]:
            return (vectors.mT @ gradients.mT).mT
        return gradients @ vectors
    before, after = gradients.shape[:dim], gradients.shape[dim + 1 :]
    matrices = gradients.reshape(-1, gradients.shape[dim], math.prod(after))
    _, size, width = matrices.shape
    if width >= size:
        rotated = vectors.mT @ matrices
    elif width >= _THIN:
        rotated = (matrices.mT @ vectors).mT
    else:
        rotated = (matrices.mT.contiguous() @ vectors).mT
    return rotated.reshape(*before, vectors.shape[1], *after)


def eigenbasis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending and not negative, and eigenvectors of a symmetric matrix; float64."""
    symmetric = (matrix + matrix.mT) / 2
    try:
        values, vectors = torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:
        # Divide and conquer may not converge where most eigenvalues are zero.
        found = scipy.linalg.eigh(symmetric.cpu().numpy(), driver="evr")
        values, vectors = (torch.from_numpy(part).to(matrix.device) for part in found)
    return values.clamp_min(0), vectors

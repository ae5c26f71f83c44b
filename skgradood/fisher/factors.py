"""Sums from which the eigenbases of Kronecker factors come: second moments of every mode."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from skgradood.gradients import LayerGradient
from skgradood.gradients.contributions import FactorLayout, Factors
from skgradood.gradients.costs import COPIED, ReadingCosts
from skgradood.gradients.precision import in_float64, sum_dtype, widened
from skgradood.gradients.sums import row_blocks

# Second moments of one mode after the other: (size, size), or (size,) of a mode that is too large.
Moments = list[Tensor]


def usable_layout(gradient: LayerGradient, sizes: tuple[int, ...]) -> FactorLayout | None:
    """Layout of a gradient's factors, if modes of these sizes can be read off them; else None."""
    layout = gradient.factor_layout()
    return layout if layout is not None and layout.groups == 1 and len(sizes) > 1 else None


class ModeMoments:
    """Second moments of the modes of a parameter tensor's gradients, in `sum_dtype`.

    Parameters
    ----------
    sizes : tuple of int
        Sizes of the modes; see `mode_sizes`.
    max_size : int
        A mode that is larger has only the diagonal of its matrix.
    """

    def __init__(self, sizes: tuple[int, ...], max_size: int) -> None:
        self.sizes = sizes
        self.max_size = max_size

    def of_gradients(self, gradient: LayerGradient) -> Moments:
        """Σ over samples of G₍ₖ₎ G₍ₖ₎ᵀ, for the unfolding of every mode k."""
        if usable_layout(gradient, self.sizes) is not None:
            return self._sum_of_blocks(gradient, self._gradients_of_factors)
        gradients = gradient.dense()
        if len(self.sizes) == 1:
            # An exact matrix may be inverted without damping: float32 would fill its null space.
            gradients = in_float64(gradients)
        return [
            self._gram(unfolded, unfolded, mode)
            for mode, unfolded in enumerate(_unfoldings(gradients, self.sizes))
        ]

    def of_activations(self, gradient: LayerGradient) -> Moments:
        """Σ over samples and positions of l lᵀ and r rᵀ, the factors of gradients.

        Channels in groups share the second matrix, which is their mean. It is divided into its
        modes as that of gradients is.
        """
        return self._sum_of_blocks(gradient, self._activations)

    def costs(self, gradient: LayerGradient) -> ReadingCosts:
        """What `of_gradients` takes for one sample."""
        first, q = self.sizes[0], math.prod(self.sizes[1:])
        others = sum(self.sizes[1:])
        formed = float(first * q * (first + others))
        layout = usable_layout(gradient, self.sizes)
        if layout is None:
            return ReadingCosts(math.inf, formed)
        positions = layout.positions
        products = positions**2 * (first + q) + positions * (first**2 + q * others)
        return ReadingCosts(COPIED * layout.copied + products, formed)

    def _sum_of_blocks(
        self, gradient: LayerGradient, moments: Callable[[Factors], Moments]
    ) -> Moments:
        groups, positions, *_ = gradient.factor_layout() or (1, 1)
        numbers = positions * (self.sizes[0] + groups * math.prod(self.sizes[1:]))
        blocks = [moments(gradient.factors(rows)) for rows in row_blocks(gradient.n, numbers)]
        return [sum(matrices[1:], start=matrices[0]) for matrices in zip(*blocks, strict=True)]

    def _gradients_of_factors(self, factors: Factors) -> Moments:
        """G = L Rᵀ, so that G Gᵀ = L (Rᵀ R) Lᵀ, and the others likewise."""
        left, right = factors.left[:, 0], factors.right[:, 0]
        weighted_left, weighted_right = left @ (right.mT @ right), right @ (left.mT @ left)
        moments = [self._gram(_by_features(weighted_left), _by_features(left), 0)]
        split = (*self.sizes[1:], left.shape[-1])
        unfolded = zip(_unfoldings(weighted_right, split), _unfoldings(right, split), strict=True)
        for mode, (weighted, plain) in enumerate(list(unfolded)[:-1]):
            moments.append(self._gram(weighted, plain, mode + 1))
        return moments

    def _activations(self, factors: Factors) -> Moments:
        outputs = _by_features(factors.left.flatten(1, 2))
        split = (*self.sizes[1:], factors.right.shape[-1])
        right = _unfoldings(factors.right.flatten(0, 1), split)[:-1]
        shared = [
            self._gram(u, u, mode) / factors.right.shape[1] for mode, u in enumerate(right, 1)
        ]
        return [self._gram(outputs, outputs, 0), *shared]

    def _gram(self, a: Tensor, b: Tensor, mode: int) -> Tensor:
        if self.sizes[mode] <= self.max_size:
            return widened(a @ b.mT)
        return (a * b).sum(1, dtype=sum_dtype(a.device))


def _unfoldings(tensors: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """Samples (m, ...) of tensors with these modes, as (size, m * others) for every mode."""
    tensors = tensors.reshape(len(tensors), *sizes)
    return [tensors.movedim(mode + 1, 0).flatten(1) for mode in range(len(sizes))]


def _by_features(tensors: Tensor) -> Tensor:
    """(m, features, positions) as (features, m * positions)."""
    return tensors.movedim(1, 0).flatten(1)

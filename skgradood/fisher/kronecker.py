"""Kronecker-factored approximations: KFAC, EKFAC, and the exact matrix of a small tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skgradood.fisher.approximation import FisherOptions
from skgradood.fisher.basis import KroneckerBasis, eigenbasis
from skgradood.fisher.factors import ModeMoments
from skgradood.fisher.rotated import Rotated, without_rounding
from skgradood.fisher.views import mode_sizes
from skgradood.gradients import LayerGradient
from skgradood.gradients.costs import ReadingCosts


class KFAC(Rotated):
    """Kronecker product of one factor a mode.

    With ``basis="gradients"`` the factors are F₍ₖ₎ = E[G₍ₖ₎ G₍ₖ₎ᵀ], and F ≈ ⊗ F₍ₖ₎ / (tr F)^(K-1),
    which has the trace of the Fisher matrix. With ``basis="activations"`` they are the second
    moments of activations, summed over positions, and of output gradients, averaged over
    positions [1]_ [2]_; parameters that meet no activations have the former.

    References
    ----------
    .. [1] Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
       Curvature", ICML 2015.
    .. [2] Grosse and Martens, "A Kronecker-factored Approximate Fisher Matrix for Convolution
       Layers", ICML 2016.
    """

    key = "kfac"

    def __init__(self, name: str, shape: tuple[int, ...], options: FisherOptions) -> None:
        super().__init__(name, shape, options)
        self.sizes = self._mode_sizes()

    def _mode_sizes(self) -> tuple[int, ...]:
        return mode_sizes(self.shape, self.options.max_factor_size)

    def costs_of_sums(self, gradient: LayerGradient) -> ReadingCosts:
        if self._reads_activations(gradient):
            return ReadingCosts(0.0, math.inf)
        return self._moments().costs(gradient)

    def _terms(self, gradient: LayerGradient) -> dict[str, Tensor]:
        if self._reads_activations(gradient):
            kind, matrices = "activations", self._moments().of_activations(gradient)
            _, positions, *_ = gradient.factor_layout() or (1, 1)
            n_terms = gradient.n * positions
        else:
            kind, matrices = "gradients", self._moments().of_gradients(gradient)
            n_terms = gradient.n
        terms = {f"{kind} {mode}": matrix for mode, matrix in enumerate(matrices)}
        return terms | {f"{kind} n": torch.tensor(float(n_terms))}

    def finalize(self) -> None:
        self.basis, values = self._diagonalised()
        product = values[0]
        for others in values[1:]:
            product = product[..., None] * others
        self._set_eigenvalues(without_rounding(product * self._scale()))

    def _moments(self) -> ModeMoments:
        return ModeMoments(self.sizes, self._max_size())

    def _max_size(self) -> int:
        return self.options.max_factor_size

    def _reads_activations(self, gradient: LayerGradient) -> bool:
        wanted = self.options.basis == "activations" and len(self.sizes) > 1
        return wanted and gradient.factor_layout() is not None

    def _kind(self) -> str:
        # Some rows may have come without activations; they then play no part.
        return "activations" if "activations n" in self.sums else "gradients"

    def _diagonalised(self) -> tuple[KroneckerBasis, list[Tensor]]:
        """The eigenbasis, and the eigenvalues of every factor's sum."""
        vectors: list[Tensor | None] = []
        values: list[Tensor] = []
        for mode, size in enumerate(self.sizes):
            matrix = self.sums.get(f"{self._kind()} {mode}")
            if matrix is None:  # no sample has a gradient here
                vectors.append(None)
                values.append(torch.zeros(size, dtype=torch.float64))
            elif matrix.ndim == 1:
                vectors.append(None)
                values.append(matrix)
            else:
                own_values, own_vectors = eigenbasis(matrix)
                vectors.append(own_vectors)
                values.append(own_values)
        return KroneckerBasis(self.sizes, tuple(vectors)), values

    def _scale(self) -> float:
        """What the product of the factors' sums is multiplied with."""
        if f"{self._kind()} n" not in self.sums:
            return 0.0
        n_terms = float(self.sums[f"{self._kind()} n"])
        traces = [
            float(m.trace() if m.ndim == 2 else m.sum())
            for m in (self.sums[f"{self._kind()} {mode}"] for mode in range(len(self.sizes)))
        ]
        if self._kind() == "gradients":
            return traces[0] ** (1 - len(traces)) / self.n_samples if traces[0] > 0 else 0.0
        # The modes of the activations have one trace between them.
        shared = traces[1] ** (2 - len(traces)) if traces[1] > 0 else 0.0
        without_activations = float(self.sums.get("gradients n", 0.0))
        return shared / (n_terms * (self.n_samples - without_activations))


class EKFAC(KFAC):
    """KFAC's eigenbasis with the exact second moments along it (George et al. 2018).

    λ = E[(Uᵀ g)²]: among all matrices that are diagonal in this basis the nearest to the Fisher
    matrix. The first pass over the samples finds the basis, the second the moments.

    References
    ----------
    .. [1] George, Laurent, Bouthillier, Ballas and Vincent, "Fast Approximate Natural Gradient
       Descent in a Kronecker Factored Eigenbasis", NeurIPS 2018.
    """

    key = "ekfac"
    n_passes = 2

    def costs_of_sums(self, gradient: LayerGradient) -> ReadingCosts:
        if not self._has_basis():
            return super().costs_of_sums(gradient)
        return self.costs_of_form(gradient)

    def _terms(self, gradient: LayerGradient) -> dict[str, Tensor]:
        if not self._has_basis():
            return super()._terms(gradient)
        return {"squares": self._squares(gradient)}

    def finalize(self) -> None:
        if not self._has_basis():
            self.basis, _ = self._diagonalised()
            self.n_samples, self.sums = 0, {}
        else:
            self._set_eigenvalues(without_rounding(self._mean("squares", self.sizes)))

    def _has_basis(self) -> bool:
        return "basis" in vars(self)


class Block(KFAC):
    """The exact Fisher matrix of one small tensor; of deficient rank where samples are few."""

    key = "block"

    def _mode_sizes(self) -> tuple[int, ...]:
        size = math.prod(self.shape)
        if size > self.options.max_block_size:
            raise ValueError(
                f"the exact Fisher matrix of {self.name!r} would have {size} rows, more than "
                f"max_block_size={self.options.max_block_size}; choose smaller layers, "
                "approximation='ekfac' or 'sketch', or raise max_block_size"
            )
        return (size,)

    def _max_size(self) -> int:
        return self.options.max_block_size

"""Approximations without rotation: none at all, and the diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skgradood.fisher.approximation import Approximation, FisherOptions
from skgradood.fisher.basis import KroneckerBasis
from skgradood.fisher.rotated import Rotated
from skgradood.gradients import LayerGradient
from skgradood.gradients.costs import SQUARED, ReadingCosts


class Identity(Approximation):
    """The identity in place of the Fisher matrix: the quadratic form is the squared norm."""

    key = "identity"
    n_passes = 0

    def __init__(self, name: str, shape: tuple[int, ...], options: FisherOptions) -> None:
        super().__init__(name, shape, options)
        self.complete = True

    def _terms(self, gradient: LayerGradient) -> dict[str, Tensor]:
        return {}

    def finalize(self) -> None:
        self.complete = True

    def costs_of_form(self, gradient: LayerGradient) -> ReadingCosts:
        # A norm has ways of its own, of which forming the gradient is the last.
        return ReadingCosts(gradient.cost(), SQUARED * math.prod(self.shape))

    def quadratic_form(self, gradient: LayerGradient) -> Tensor:
        return gradient.squared_norm()

    def whitened(self, gradients: Tensor) -> Tensor:
        return gradients

    def effective_dims(self) -> Tensor:
        return torch.ones(self.shape, dtype=torch.float64)

    def effective_dim(self) -> float:
        return self.trace()

    def trace(self) -> float:
        return float(math.prod(self.shape))


class Diagonal(Rotated):
    """The diagonal E[g²] of the Fisher matrix (ROSE's cheaper form)."""

    key = "diagonal"

    def __init__(self, name: str, shape: tuple[int, ...], options: FisherOptions) -> None:
        super().__init__(name, shape, options)
        sizes = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (math.prod(shape),)
        self.basis = KroneckerBasis(sizes, (None,) * len(sizes))

    def norm_and_form(self, gradient: LayerGradient) -> Tensor:
        """Squared norms and quadratic forms from one reading of the gradient, (2, n)."""
        return self._forms(gradient, with_norms=True)

    def _terms(self, gradient: LayerGradient) -> dict[str, Tensor]:
        return {"squares": self._squares(gradient)}

    def finalize(self) -> None:
        # Nothing was rotated, so that a dead coordinate is exactly zero.
        self._set_eigenvalues(self._mean("squares", self.basis.sizes))

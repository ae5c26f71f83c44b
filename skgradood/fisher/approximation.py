"""What the approximations of a Fisher matrix have in common: sums in, quadratic forms out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from skgradood.gradients import LayerGradient
from skgradood.gradients.costs import ReadingCosts
from skgradood.gradients.precision import in_float64
from skgradood.gradients.squares import accumulated

BASES = ("gradients", "activations")
DAMPING_SCALES = ("mean", "absolute")

Same = TypeVar("Same", bound="Approximation")


# What damping="auto" stands for, as a multiple of the mean eigenvalue: the middle of a plateau
# that the search for the recommended detector found (docs/results/default.md).
AUTO_DAMPING = 3e-3


@dataclass(frozen=True)
class FisherOptions:
    """Options of all approximations; each reads those that concern it.

    Attributes
    ----------
    damping : float
        Added to every eigenvalue before it is inverted; 0 is the pseudo-inverse.
    power : float
        Of the inverse: 1 gives gᵀ F⁻¹ g, 2 the squared norm of the natural gradient, ‖F⁻¹ g‖².
        Multiplied by λ̄^(power - 1), λ̄ the tensor's mean eigenvalue, so that the statistic has no
        unit and tensors compare.
    damping_scale : {"mean", "absolute"}
        Whether ``damping`` is a multiple of the tensor's mean eigenvalue, or in its unit.
    basis : {"gradients", "activations"}
        Where eigenbases come from: second moments of gradients, E[G Gᵀ] and E[Gᵀ G], or of
        activations and output gradients.
    max_factor_size : int
        Largest second mode of a convolution, see `mode_sizes`. Any other mode that is larger is
        not rotated.
    max_block_size : int
        Largest tensor that "block" takes.
    sketch_size : int
        Most coordinates of a sketch.
    random_state : int
        Seed of the sketches.
    """

    damping: float = 1e-3
    power: float = 1.0
    damping_scale: str = "mean"
    basis: str = "gradients"
    max_factor_size: int = 1024
    max_block_size: int = 2048
    sketch_size: int = 256
    random_state: int = 0

    def inverse(self, eigenvalues: Tensor) -> Tensor:
        """λ̄^(power - 1) (λ + δ)^(-power), with zeros where λ and δ are zero."""
        damped, mean = self.damped(eigenvalues), eigenvalues.mean()
        unit = torch.where(mean > 0, mean, 1.0)
        relative = torch.where(damped > 0, damped / unit, torch.inf)
        return relative**-self.power / unit

    def damped(self, eigenvalues: Tensor) -> Tensor:
        """Eigenvalues with damping; those of dead coordinates stay zero without it."""
        scale = eigenvalues.mean() if self.damping_scale == "mean" else 1.0
        return eigenvalues + self.damping * scale


class Approximation(ABC):
    """Approximation of the Fisher matrix E[g gᵀ] of one parameter tensor, from sums over samples.

    Stream the gradients of the same samples through `update`, and call `finalize` after each
    pass until `complete`. Sums over disjoint samples `merge`.

    Parameters
    ----------
    name : str
        The parameter's name.
    shape : sequence of int
        The parameter's shape.
    options : FisherOptions
        How to approximate.

    Attributes
    ----------
    key : str
        The public name of the kind.
    n_passes : int
        Passes over the samples that it takes.
    has_channels : bool
        Whether it lives on the parameter's own coordinates, so that channels can be told apart.
    n_samples : int
        Samples in the sums.
    sums : dict of str to Tensor
        Sums over the samples of the current pass, float64; those of one update alone may be in
        the precision of its gradients.
    complete : bool
        Whether no further pass is needed, and quadratic forms can be asked for.
    """

    key: ClassVar[str]
    n_passes: ClassVar[int] = 1
    has_channels: ClassVar[bool] = True

    def __init__(self, name: str, shape: tuple[int, ...], options: FisherOptions) -> None:
        self.name = name
        self.shape = tuple(shape)
        self.options = options
        self.n_samples = 0
        self.sums: dict[str, Tensor] = {}
        self.complete = False

    def update(self, gradient: LayerGradient) -> None:
        """Add the samples of a batch to the sums.

        A gradient that has factors is read by them; `LayerGradient.pieces` are read formed.
        """
        self.n_samples += gradient.n
        if gradient.contributions:
            for name, value in self._terms(gradient).items():
                self._add(name, value)

    def merge(self: Same, other: Same) -> None:
        """Add the sums of another approximation of the same tensor, in the same pass."""
        self.n_samples += other.n_samples
        for name, value in other.sums.items():
            if name in self.sums:
                self._add(name, value)
            else:
                self.sums[name] = in_float64(value).clone()

    def copy(self: Same) -> Same:
        """The same approximation, whose sums can go on alone."""
        copy = object.__new__(type(self))
        vars(copy).update(vars(self), sums={k: v.clone() for k, v in self.sums.items()})
        return copy

    def blank(self: Same) -> Same:
        """The same approximation in the same pass, with sums of no samples."""
        copy = object.__new__(type(self))
        vars(copy).update(vars(self), n_samples=0, sums={})
        return copy

    @abstractmethod
    def _terms(self, gradient: LayerGradient) -> dict[str, Tensor]:
        """What the samples of a batch add to the sums."""

    @abstractmethod
    def finalize(self) -> None:
        """End a pass over the samples."""

    @abstractmethod
    def quadratic_form(self, gradient: LayerGradient) -> Tensor:
        """λ̄^(power - 1) gᵀ F^(-power) g with the damped inverse, (n,) in `sum_dtype`.

        From factors or formed, as `update`.
        """

    @abstractmethod
    def whitened(self, gradients: Tensor) -> Tensor:
        """F^(-power/2) g with the symmetric root, ``(m, *shape)`` from ``(m, *shape)``.

        Raises
        ------
        ValueError
            Unless ``has_channels``.
        """

    @abstractmethod
    def effective_dims(self) -> Tensor:
        """Coordinates' shares of `effective_dim`, ``shape``, float64.

        Raises
        ------
        ValueError
            As `whitened`.
        """

    @abstractmethod
    def effective_dim(self) -> float:
        """Σ λ/(λ + δ): the mean of gᵀ F⁻¹ g; the live coordinates, without damping."""

    @abstractmethod
    def trace(self) -> float:
        """Trace of the undamped approximation."""

    def costs_of_sums(self, gradient: LayerGradient) -> ReadingCosts:
        """What `update` takes for one sample of a gradient."""
        return self.costs_of_form(gradient)

    @abstractmethod
    def costs_of_form(self, gradient: LayerGradient) -> ReadingCosts:
        """What `quadratic_form` takes for one sample of a gradient."""

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = accumulated(self.sums.get(name), value)

    def _mean(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Mean over all samples, float64; zero where nothing was added."""
        total = self.sums.get(name, torch.zeros(shape))
        return in_float64(total).reshape(shape) / max(1, self.n_samples)

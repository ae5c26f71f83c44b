"""The Fisher matrices of all layers of a module, and the passes that estimate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized

from torch import nn

from skgradood.fisher.approximation import Approximation, FisherOptions
from skgradood.fisher.diagonal import Diagonal, Identity
from skgradood.fisher.kronecker import EKFAC, KFAC, Block
from skgradood.fisher.reducers import FisherSums
from skgradood.fisher.sketch import Sketch
from skgradood.gradients import Reducer
from skgradood.gradients.layers import LayerLayout, trainable_parameters

APPROXIMATIONS: dict[str, type[Approximation]] = {
    kind.key: kind for kind in (Identity, Diagonal, KFAC, EKFAC, Block, Sketch)
}


class FisherEstimate:
    """Approximations of the Fisher matrix of every parameter tensor that is in a layer.

    Parameters
    ----------
    by_parameter : dict of str to list of Approximation
        By the parameter's name, the same kinds in the same order for each.

    Attributes
    ----------
    n_samples : int
        Samples that it is estimated from.

    See Also
    --------
    FisherEstimate.of_module : Starts one.
    """

    def __init__(self, by_parameter: Mapping[str, Sequence[Approximation]]) -> None:
        self.by_parameter = by_parameter
        self.n_samples = 0

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        layout: LayerLayout,
        kinds: Sequence[str],
        options: FisherOptions,
    ) -> FisherEstimate:
        """Start with sums of no samples.

        Parameters
        ----------
        module : nn.Module
            The model.
        layout : LayerLayout
            The layers; tensors in none are left out.
        kinds : sequence of str
            Keys of `APPROXIMATIONS`.
        options : FisherOptions
            For all of them.

        Raises
        ------
        ValueError
            If a tensor is too large for an approximation.
        """
        shapes = {
            name: _real_shape(parameter)
            for name, parameter in trainable_parameters(module).items()
            if name in layout.slots
        }
        return cls(
            {
                name: [APPROXIMATIONS[kind](name, shape, options) for kind in kinds]
                for name, shape in shapes.items()
            }
        )

    @property
    def complete(self) -> bool:
        """Whether no further pass is needed."""
        return all(a.complete for members in self.by_parameter.values() for a in members)

    def fit(self, stream: Callable[[Reducer], Sized]) -> FisherEstimate:
        """Estimate all matrices, in as many passes as they need: at most two.

        Parameters
        ----------
        stream : callable
            ``stream(reducer)`` runs the gradients of all samples through a reducer, and returns
            one value a sample.
        """
        while not self.complete:
            unfinished = {
                name: [a for a in members if not a.complete]
                for name, members in self.by_parameter.items()
            }
            self.n_samples = len(stream(FisherSums(unfinished)))
            self._finalize(unfinished)
        return self

    def extend(self, stream: Callable[[Reducer], Sized]) -> FisherEstimate:
        """Add further samples to the sums of a complete estimate, in one pass.

        Bases stay those of the samples that came first; eigenvalues follow all of them.
        """
        if any(a.n_passes for members in self.by_parameter.values() for a in members):
            self.n_samples += len(stream(FisherSums(self.by_parameter)))
            self._finalize(self.by_parameter)
        return self

    def copy(self) -> FisherEstimate:
        """The same estimate, which can be extended without it."""
        members = {name: [a.copy() for a in own] for name, own in self.by_parameter.items()}
        copied = FisherEstimate(members)
        copied.n_samples = self.n_samples
        return copied

    def effective_dims(self, layout: LayerLayout) -> list[list[float]]:
        """Σ λ/(λ + δ) for every kind and layer; a tensor in several layers counts in each."""
        n_kinds = len(next(iter(self.by_parameter.values())))
        dims = [[0.0] * len(layout.names) for _ in range(n_kinds)]
        for name, members in self.by_parameter.items():
            columns = layout.slots[name].columns
            if isinstance(columns, slice):
                columns = list(range(len(layout.names)))[columns]
            for k, approximation in enumerate(members):
                for column in columns:
                    # Channels share what their tensor has.
                    share = 1.0 if layout.slots[name].split is None else 1.0 / len(columns)
                    dims[k][column] += share * approximation.effective_dim()
        return dims

    @staticmethod
    def _finalize(by_parameter: Mapping[str, Sequence[Approximation]]) -> None:
        for members in by_parameter.values():
            for approximation in members:
                approximation.finalize()


def _real_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Complex numbers are pairs of real ones."""
    return (*parameter.shape, 2) if parameter.is_complex() else tuple(parameter.shape)

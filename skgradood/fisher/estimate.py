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


def kinds_of(approximation: str | Sequence[str]) -> list[str]:
    """List the approximations that an option asks for.

    Parameters
    ----------
    approximation : str or sequence of str
        One key of `APPROXIMATIONS`, or several.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For an unknown key, none at all, or the same key twice.
    """
    kinds = [approximation] if isinstance(approximation, str) else list(approximation)
    unknown = [kind for kind in kinds if kind not in APPROXIMATIONS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"approximation must be one of {sorted(APPROXIMATIONS)}, or several different ones; "
            f"got {approximation!r}"
        )
    return kinds


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
            If a tensor is too large for an approximation, or an approximation cannot tell apart
            the channels that are layers.
        """
        _check_channels(layout, kinds)
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

        Raises
        ------
        ValueError
            If a sample's gradient is not finite.
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
            split = layout.slots[name].split
            for k, approximation in enumerate(members):
                own = [approximation.effective_dim()] * len(columns)
                if split is not None:
                    own = split(approximation.effective_dims()[None])[0].tolist()
                for column, dim in zip(columns, own, strict=True):
                    dims[k][column] += dim
        return dims

    @staticmethod
    def _finalize(by_parameter: Mapping[str, Sequence[Approximation]]) -> None:
        for members in by_parameter.values():
            for approximation in members:
                _check_finite(approximation)
                approximation.finalize()


def _check_finite(approximation: Approximation) -> None:
    if not all(bool(value.isfinite().all()) for value in approximation.sums.values()):
        raise ValueError(
            f"some of the samples that the Fisher matrix of {approximation.name!r} is estimated "
            "from have gradients that are not finite, or overflow when squared; leave them out "
            "(a GradientNormTransformer shows which they are), or use a model in float64"
        )


def _check_channels(layout: LayerLayout, kinds: Sequence[str]) -> None:
    able = [kind for kind, approximation in APPROXIMATIONS.items() if approximation.has_channels]
    unable = [kind for kind in kinds if kind not in able]
    if unable and any(slot.split is not None for slot in layout.slots.values()):
        raise ValueError(
            f"layers='channel' needs an approximation with coordinates of its own for every "
            f"channel, one of {able}; got {unable[0]!r}"
        )


def _real_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Complex numbers are pairs of real ones."""
    return (*parameter.shape, 2) if parameter.is_complex() else tuple(parameter.shape)

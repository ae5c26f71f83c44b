"""Reducers: Fisher sums of a fit, and the quadratic forms of a transform, in one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from skgradood.fisher.approximation import Approximation
from skgradood.fisher.diagonal import Diagonal, Identity
from skgradood.gradients import LayerGradient
from skgradood.gradients.contributions import FactorLayout
from skgradood.gradients.costs import ReadingCosts, read_factors
from skgradood.gradients.growing import GrowingTensor
from skgradood.gradients.layers import LayerLayout
from skgradood.gradients.precision import sum_dtype, widened

# The approximations of every parameter tensor that is in a layer.
ByParameter = Mapping[str, Sequence[Approximation]]

# Places in such a list.
Kinds = tuple[int, ...]


class Plans:
    """How the gradients of every layer had best be read; told apart by how they are sums."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, FactorLayout | None], list[bool]] = {}

    def by_factors(self, gradient: LayerGradient, costs: Iterable[ReadingCosts]) -> list[bool]:
        """Which readers, with these costs, read its factors; the others read it formed."""
        key = gradient.name, gradient.factor_layout()
        if key not in self._known:
            self._known[key] = read_factors(gradient.cost(), list(costs))
        return self._known[key]


class FisherSums:
    """Adds the gradients of every committed batch to the sums of unfinished approximations.

    Parameters
    ----------
    approximations : dict of str to list of Approximation
        By the parameter's name; updated in place.
    """

    def __init__(self, approximations: ByParameter) -> None:
        self.approximations = approximations
        self._batch: dict[str, list[Approximation]] = {}
        self._plans = Plans()

    def begin(self, n: int, device: torch.device) -> None:
        self._batch = {
            name: [approximation.blank() for approximation in members]
            for name, members in self.approximations.items()
        }

    def update(self, gradient: LayerGradient) -> None:
        members = self._batch.get(gradient.name, [])
        active = [a for a in members if a.n_passes > 0]
        by_factors = self._plans.by_factors(gradient, (a.costs_of_sums(gradient) for a in active))
        for approximation in compress(active, by_factors):
            approximation.update(gradient)
        forming = [a for a, is_read in zip(active, by_factors, strict=True) if not is_read]
        for piece in _formed(gradient) if forming else ():
            for approximation in forming:
                approximation.update(piece)

    def commit(self) -> None:
        for name, members in self.approximations.items():
            for approximation, batch in zip(members, self._batch[name], strict=True):
                approximation.merge(batch)


class QuadraticForms:
    """gᵀ F⁻¹ g of every sample, for every layer and approximation.

    Parameters
    ----------
    layout : LayerLayout
        The layers; the forms of a layer's tensors add up.
    approximations : dict of str to list of Approximation
        By the parameter's name, the same kinds in the same order for each.
    """

    def __init__(self, layout: LayerLayout, approximations: ByParameter) -> None:
        self.layout = layout
        self.approximations = approximations
        kinds = next(iter(approximations.values()))
        self._n_kinds = len(kinds)
        self._readings = _readings(kinds)
        self._plans = Plans()
        self._committed = GrowingTensor(dim=1)

    def begin(self, n: int, device: torch.device) -> None:
        # Layer by layer: what one adds lies together.
        shape = (self._n_kinds, len(self.layout.names), n)
        self._by_layer = torch.zeros(shape, dtype=sum_dtype(device), device=device)
        self._layers = [of_kind.unbind() for of_kind in self._by_layer]

    def update(self, gradient: LayerGradient) -> None:
        slot = self.layout.slots.get(gradient.name)
        if slot is None or not gradient.contributions:
            return
        members = self.approximations[gradient.name]
        if slot.split is not None:
            self._update_channels(gradient, members, slot.split)
            return
        readers = [members[k[-1]] for k in self._readings]
        by_factors = self._plans.by_factors(gradient, (a.costs_of_form(gradient) for a in readers))
        for k in compress(self._readings, by_factors):
            self._add(k, gradient, members[k[-1]])
        forming = [k for k, is_read in zip(self._readings, by_factors, strict=True) if not is_read]
        for piece in _formed(gradient) if forming else ():
            for k in forming:
                self._add(k, piece, members[k[-1]])

    def commit(self) -> None:
        self._committed.append(self._by_layer.mT)

    def result(self) -> np.ndarray:
        """Forms of all committed batches, (number of kinds, n, L) float64, off the device once."""
        return self._committed.whole().cpu().double().numpy()

    def _add(self, kinds: Kinds, gradient: LayerGradient, approximation: Approximation) -> None:
        if isinstance(approximation, Diagonal) and len(kinds) > 1:
            forms = approximation.norm_and_form(gradient)
        else:
            forms = approximation.quadratic_form(gradient)[None]
        for k, form in zip(kinds, forms.unbind(), strict=True):
            self.layout.slots[gradient.name].add(form, self._layers[k], gradient.start)

    def _update_channels(
        self,
        gradient: LayerGradient,
        members: Sequence[Approximation],
        split: Callable[[Tensor], Tensor],
    ) -> None:
        columns = self.layout.slots[gradient.name].columns
        for piece in _formed(gradient):
            rows = slice(piece.start, piece.start + piece.n)
            for k, approximation in enumerate(members):
                squares = widened(approximation.whitened(piece.dense())).square()
                if gradient.dtype.is_complex:
                    squares = squares.sum(-1)
                self._by_layer[k].T[rows, columns] += split(squares)


def _readings(members: Sequence[Approximation]) -> list[Kinds]:
    """Kinds that are served together: a squared norm comes with the form of a diagonal."""
    norms = (k for k, a in enumerate(members) if isinstance(a, Identity))
    diagonals = (k for k, a in enumerate(members) if isinstance(a, Diagonal))
    pairs = list(zip(norms, diagonals, strict=False))
    paired = [k for pair in pairs for k in pair]
    return [*pairs, *((k,) for k in range(len(members)) if k not in paired)]


def _formed(gradient: LayerGradient) -> Iterator[LayerGradient]:
    """The gradient in pieces, unless it is one already."""
    is_piece = not gradient.contributions or gradient.is_formed()
    return iter((gradient,)) if is_piece else gradient.pieces()

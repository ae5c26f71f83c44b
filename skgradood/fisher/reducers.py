"""Reducers: Fisher sums of a fit, and the quadratic forms of a transform, in one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from skgradood.fisher.approximation import Approximation
from skgradood.fisher.diagonal import Identity
from skgradood.gradients import LayerGradient
from skgradood.gradients.layers import LayerLayout

# The approximations of every parameter tensor that is in a layer.
ByParameter = Mapping[str, Sequence[Approximation]]


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

    def begin(self, n: int, device: torch.device) -> None:
        self._batch = {
            name: [approximation.blank() for approximation in members]
            for name, members in self.approximations.items()
        }

    def update(self, gradient: LayerGradient) -> None:
        members = self._batch.get(gradient.name, [])
        reading = [a for a in members if a.sums_read_factors(gradient)]
        forming = [a for a in members if a not in reading and a.n_passes > 0]
        for approximation in reading:
            approximation.update(gradient)
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
        self._n_kinds = len(next(iter(approximations.values())))
        self._batches: list[Tensor] = []

    def begin(self, n: int, device: torch.device) -> None:
        shape = (self._n_kinds, n, len(self.layout.names))
        self._forms = torch.zeros(shape, dtype=torch.float64, device=device)

    def update(self, gradient: LayerGradient) -> None:
        slot = self.layout.slots.get(gradient.name)
        if slot is None or not gradient.contributions:
            return
        members = self.approximations[gradient.name]
        if slot.split is not None:
            self._update_channels(gradient, members, slot.split)
            return
        forming = [
            k for k, a in enumerate(members) if not (_is_norm(a) or a.form_reads_factors(gradient))
        ]
        for k, approximation in enumerate(members):
            # A norm is read off the formed gradient, where that is there anyway.
            if k not in forming and not (forming and _is_norm(approximation)):
                self._add(k, gradient, approximation.quadratic_form(gradient))
        if not forming:
            return
        forming += [k for k, a in enumerate(members) if _is_norm(a)]
        for piece in _formed(gradient):
            for k in forming:
                self._add(k, piece, members[k].quadratic_form(piece))

    def commit(self) -> None:
        self._batches.append(self._forms)

    def result(self) -> np.ndarray:
        """Forms of all committed batches, (number of kinds, n, L) float64, off the device once."""
        return torch.cat(self._batches, dim=1).cpu().numpy()

    def _add(self, k: int, gradient: LayerGradient, forms: Tensor) -> None:
        rows = slice(gradient.start, gradient.start + gradient.n)
        self._forms[k, rows, self.layout.slots[gradient.name].columns] += forms[:, None]

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
                squares = approximation.whitened(piece.dense()).double().square()
                if gradient.dtype.is_complex:
                    squares = squares.sum(-1)
                self._forms[k, rows, columns] += split(squares)


def _is_norm(approximation: Approximation) -> bool:
    return isinstance(approximation, Identity)


def _formed(gradient: LayerGradient) -> Iterator[LayerGradient]:
    return gradient.pieces() if gradient.contributions else iter((gradient,))

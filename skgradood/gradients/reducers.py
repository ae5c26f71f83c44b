"""Reducers: what becomes of per-sample gradients while the backward pass runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skgradood.gradients.growing import GrowingTensor
from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.layers import LayerLayout
from skgradood.gradients.precision import sum_dtype, widened


class Reducer(Protocol):
    """Receives the per-sample gradients of a batch, layer by layer.

    Every (layer, sample) pair comes exactly once, in pieces of consecutive samples. A batch may be
    run again after a failure or a fall-back; what was received since ``begin`` is kept only when
    ``commit`` follows.
    """

    def begin(self, n: int, device: torch.device) -> None:
        """A batch of n samples starts; whatever an uncommitted batch left is forgotten."""

    def update(self, gradient: LayerGradient) -> None:
        """One layer's gradients; they may be gone after the call."""

    def commit(self) -> None:
        """The batch is complete and verified."""


class SquaredNorms:
    """Squared norms of every layer, one row a sample.

    Parameters
    ----------
    layout : LayerLayout
        The layers; several tensors of one layer add up, and a tensor in no layer is skipped.
    """

    def __init__(self, layout: LayerLayout) -> None:
        self.layout = layout
        self._committed = GrowingTensor()

    def begin(self, n: int, device: torch.device) -> None:
        # Layer by layer: what one adds lies together.
        shape = (len(self.layout.names), n)
        self._by_layer = torch.zeros(shape, dtype=sum_dtype(device), device=device)
        self._layers = self._by_layer.unbind()

    def update(self, gradient: LayerGradient) -> None:
        slot = self.layout.slots.get(gradient.name)
        if slot is None:  # in no layer: its squares are never computed
            return
        if slot.split is None:
            slot.add(gradient.squared_norm(), self._layers, gradient.start)
            return
        norms = self.current[gradient.start : gradient.start + gradient.n]
        for rows, block in gradient.blocks():
            norms[rows, slot.columns] += slot.split(_squares(block))

    def commit(self) -> None:
        self._committed.append(self.current)

    @property
    def current(self) -> Tensor:
        """Squared norms of the batch at hand, (n, L)."""
        return self._by_layer.T

    def result(self) -> np.ndarray:
        """Squared norms of all committed batches, (n, L) float64; they leave the device once."""
        return self._committed.whole().cpu().double().numpy()


class NoGradients:
    """Receives nothing, where a pass is run for its log-likelihoods."""

    def begin(self, n: int, device: torch.device) -> None:
        """Nothing is kept."""

    def update(self, gradient: LayerGradient) -> None:
        """Nothing is kept."""

    def commit(self) -> None:
        """Nothing is kept."""


class Both:
    """Hands every layer to two reducers."""

    def __init__(self, first: Reducer, second: Reducer) -> None:
        self.reducers = (first, second)

    def begin(self, n: int, device: torch.device) -> None:
        for reducer in self.reducers:
            reducer.begin(n, device)

    def update(self, gradient: LayerGradient) -> None:
        for reducer in self.reducers:
            reducer.update(gradient)

    def commit(self) -> None:
        for reducer in self.reducers:
            reducer.commit()


def _squares(block: Tensor) -> Tensor:
    if block.is_complex():
        return widened(torch.view_as_real(block)).square().sum(-1)
    return widened(block).square()

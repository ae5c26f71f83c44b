"""Mean gradients, and the angle that a sample's gradient makes with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from skgradood.gradients.growing import GrowingTensor
from skgradood.gradients.layer_gradient import LayerGradient
from skgradood.gradients.layers import LayerLayout
from skgradood.gradients.precision import in_float64, sum_dtype, widened


class MeanGradients:
    """The mean over all samples of the gradient of every parameter, as a reducer.

    Parameters
    ----------
    layout : LayerLayout
        A parameter in no layer is skipped.
    """

    def __init__(self, layout: LayerLayout) -> None:
        self.layout = layout
        self._sums: dict[str, Tensor] = {}
        self._n = 0

    def begin(self, n: int, device: torch.device) -> None:
        self._batch: dict[str, Tensor] = {}
        self._batch_size = n

    def update(self, gradient: LayerGradient) -> None:
        if gradient.name not in self.layout.slots:
            return
        for piece in gradient.pieces():
            total = widened(piece.dense()).sum(dim=0)
            self._batch[gradient.name] = self._batch.get(gradient.name, 0) + total

    def commit(self) -> None:
        for name, total in self._batch.items():
            self._sums[name] = self._sums.get(name, 0) + in_float64(total)
        self._n += self._batch_size

    def result(self) -> dict[str, np.ndarray]:
        """Mean gradients by the parameter's name, float64; complex ones as pairs of real ones."""
        return {name: (total / self._n).cpu().numpy() for name, total in self._sums.items()}


class Cosines:
    """Cosine of the angle between a sample's gradient and a given direction, layer by layer.

    Parameters
    ----------
    layout : LayerLayout
        The layers; a parameter in no layer is skipped.
    directions : mapping of str to ndarray
        A direction for every parameter, as `MeanGradients` returns them.
    """

    def __init__(self, layout: LayerLayout, directions: Mapping[str, np.ndarray]) -> None:
        self.layout = layout
        self.directions = {name: torch.as_tensor(value) for name, value in directions.items()}
        self._committed = GrowingTensor(dim=1)

    def begin(self, n: int, device: torch.device) -> None:
        # Products, squares of the gradient, squares of the direction.
        shape = (3, n, len(self.layout.names))
        self._sums = torch.zeros(shape, dtype=sum_dtype(device), device=device)

    def update(self, gradient: LayerGradient) -> None:
        slot = self.layout.slots.get(gradient.name)
        if slot is None or gradient.name not in self.directions:
            return
        direction = self.directions[gradient.name].to(gradient.device, self._sums.dtype)
        for piece in gradient.pieces():
            values = widened(piece.dense())
            rows = slice(piece.start, piece.start + piece.n)
            squares = direction.square().expand_as(values)
            for total, terms in zip(
                self._sums, (values * direction, values.square(), squares), strict=True
            ):
                if slot.split is None:
                    total[rows, slot.columns] += terms.reshape(len(terms), -1).sum(1, keepdim=True)
                else:
                    total[rows, slot.columns] += slot.split(_as_parameter(terms, gradient))

    def commit(self) -> None:
        self._committed.append(self._sums)

    def result(self) -> np.ndarray:
        """Cosines of all committed batches, (n, L) float64; 0 where one side is zero."""
        products, squares, of_direction = self._committed.whole().cpu().double().numpy()
        lengths = np.sqrt(squares) * np.sqrt(of_direction)
        cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        return np.clip(cosines, -1, 1)


def _as_parameter(terms: Tensor, gradient: LayerGradient) -> Tensor:
    """Terms in the parameter's shape: real and imaginary parts add up."""
    return terms.sum(-1) if terms.ndim > 1 + len(gradient.shape) else terms

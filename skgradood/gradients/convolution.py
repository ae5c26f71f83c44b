"""Per-sample gradients of convolution weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skgradood.gradients.contributions import (
    Contribution,
    dense_where_distrusted,
    gram_norm,
    row_blocks,
    sum_of_squares,
)


@dataclass(frozen=True)
class ConvolutionGeometry:
    """Stride, padding and the rest of one convolution, a number for every spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    output_padding: tuple[int, ...]


@dataclass
class ConvolutionContribution(Contribution):
    """A convolution's weight: Σ over positions of output gradient ⊗ input patch.

    A transposed convolution is the same with its roles exchanged: patches are taken from the
    output gradient, and its input plays the part of the gradient.

    ``patched`` and ``pointwise`` are (n, r, channels, *spatial): r rows of a batch to a sample.
    """

    patched: Tensor
    pointwise: Tensor
    shape: torch.Size
    geometry: ConvolutionGeometry

    def __post_init__(self) -> None:
        self.n = len(self.patched)

    def dense(self, rows: slice) -> Tensor:
        patches, points = self._factors(rows)
        product = points @ patches.mT
        return product.reshape(len(product), *self.shape)

    def squared_norm(self) -> Tensor:
        groups = self.geometry.groups
        positions = self.patched.shape[1] * math.prod(self.pointwise.shape[3:])
        n_in, n_out = math.prod(self.shape[1:]), self.shape[0] // groups
        if self._prefers_gram(positions, n_in, n_out):
            return self._gram_norm(positions * n_in)
        numbers = groups * n_in * max(positions, n_out)
        return torch.cat([sum_of_squares(self.dense(rows)) for rows in row_blocks(self.n, numbers)])

    def _prefers_gram(self, positions: int, n_in: int, n_out: int) -> bool:
        is_plain = self.geometry.groups == 1 and not self.patched.is_complex()
        return is_plain and positions * (n_in + n_out) < n_in * n_out

    def _gram_norm(self, numbers_a_row: int) -> Tensor:
        norms, trusted = [], []
        for rows in row_blocks(self.n, numbers_a_row):
            patches, points = (factor[:, 0].mT for factor in self._factors(rows))
            block_norms, block_trusted = gram_norm(patches, points)
            norms.append(block_norms)
            trusted.append(block_trusted)
        return dense_where_distrusted(self, torch.cat(norms), torch.cat(trusted))

    def _factors(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Patches (m, groups, in / groups * kernel, positions) and points (…, out / groups, …)."""
        patched, pointwise = self.patched[rows], self.pointwise[rows]
        m, r = patched.shape[:2]
        groups, kernel, spatial = self.geometry.groups, self.shape[2:], pointwise.shape[3:]
        windows = unfold(patched.flatten(0, 1), kernel, spatial, self.geometry)
        layout = (m, r, groups, -1, math.prod(spatial))
        return _joined(windows.reshape(layout)), _joined(pointwise.reshape(layout))


def _joined(factor: Tensor) -> Tensor:
    """(m, r, groups, features, positions) as (m, groups, features, r * positions)."""
    if factor.shape[1] == 1:
        return factor[:, 0]
    return factor.permute(0, 2, 3, 1, 4).flatten(3)


def unfold(
    x: Tensor, kernel: torch.Size, positions: torch.Size, geometry: ConvolutionGeometry
) -> Tensor:
    """All patches of (N, C, *spatial) under a kernel: a view (N, C, *kernel, *positions).

    Works in any number of dimensions, with stride, dilation and zero padding.
    """
    pads = []
    for d in reversed(range(len(kernel))):
        reach = (positions[d] - 1) * geometry.stride[d] + (kernel[d] - 1) * geometry.dilation[d] + 1
        # Rows of x that no patch reaches are cut off (a negative pad).
        after = reach - geometry.padding[d] - x.shape[2 + d]
        pads += [geometry.padding[d], after]
    padded = (F.pad(x, pads) if any(pads) else x).contiguous()
    steps = padded.stride()
    by_kernel = [steps[2 + d] * geometry.dilation[d] for d in range(len(kernel))]
    by_position = [steps[2 + d] * geometry.stride[d] for d in range(len(kernel))]
    return padded.as_strided(
        (*padded.shape[:2], *kernel, *positions), (*steps[:2], *by_kernel, *by_position)
    )

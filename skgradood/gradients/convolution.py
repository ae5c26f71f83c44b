"""Per-sample gradients of convolution weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skgradood.gradients.contributions import (
    FactorLayout,
    Factors,
    ProductContribution,
    dense_where_distrusted,
    gram_norm,
    in_basis,
)
from skgradood.gradients.sums import BLOCK_NUMBERS, is_nonzero, row_blocks, sum_of_squares


class Cost(NamedTuple):
    """Microseconds a number copied, a multiplication, a number written and read, and a start.

    Fitted to the 56 convolutions of six models on two cores, for which the choice by them takes
    1.013 times as long as the quickest ways, with one thread as with two. Only ratios matter, and
    only for speed.
    """

    copied: float
    product: float
    written: float
    start: float

    def of(self, copied: int, products: int, written: int) -> float:
        """Microseconds, with one start."""
        return self.copied * copied + self.product * products + self.written * written + self.start


_PATCHES = Cost(5.2e-4, 8.1e-6, 2.7e-4, 1.7)
_FLIPPED = Cost(4.7e-4, 8.3e-6, 6.1e-4, 2.0)
_KERNEL = Cost(5.4e-4, 7.3e-6, 6.1e-4, 121.0)
_GRAM = Cost(1.0e-3, 6.8e-6, 1.6e-3, 6.0)
# Output channels that the kernel computes together.
_LANES = 16


class Way(NamedTuple):
    """Cost of a way to compute, for one sample: time on two cores, and numbers held."""

    microseconds: float
    numbers: int


_IMPOSSIBLE = Way(math.inf, 1)
# Samples whose gradients one call of a kernel computes, and no more numbers than stay in cache.
_AT_ONCE = 8


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
class ConvolutionContribution(ProductContribution):
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
        return self._DENSE[self._cheapest(self._DENSE)](self, rows)

    def squared_norm(self) -> Tensor:
        way = self._cheapest(self._ways)
        if way == "gram":
            return self._gram_norm()
        if way == "kernel":
            return self._norms_by_kernel()
        return super().squared_norm()

    def is_nonzero(self) -> Tensor:
        return is_nonzero(self.patched) & is_nonzero(self.pointwise)

    def numbers_a_row(self) -> int:
        return self._ways[self._cheapest(self._DENSE)].numbers

    def factor_layout(self) -> FactorLayout:
        rows, groups = self.patched.shape[1], self.geometry.groups
        positions = rows * math.prod(self.pointwise.shape[3:])
        copied = 0 if self._is_of_points() else groups * positions * math.prod(self.shape[1:])
        return FactorLayout(groups, positions, rows * math.prod(self.patched.shape[3:]), copied)

    def factors(self, rows: slice, channels: Tensor | None = None) -> Factors:
        patches, points = self._factors(rows, channels)
        return Factors(points, patches)

    def form(self) -> Hashable:
        sizes = self.patched.shape[2:], self.pointwise.shape[2:]
        dtypes = self.patched.dtype, self.pointwise.dtype
        return ConvolutionContribution, self.shape, self.geometry, sizes, dtypes

    @classmethod
    def joined(cls, parts: Sequence[ConvolutionContribution]) -> ConvolutionContribution:
        patched = torch.cat([part.patched for part in parts], dim=1)
        pointwise = torch.cat([part.pointwise for part in parts], dim=1)
        return cls(patched, pointwise, parts[0].shape, parts[0].geometry)

    def cost(self) -> float:
        return self._ways[self._cheapest(self._DENSE)].microseconds / _PATCHES.product

    def _is_of_points(self) -> bool:
        """Whether patches are single points, side by side as they are."""
        return math.prod(self.shape[2:]) == max(self.geometry.stride, default=1) == 1

    def _cheapest(self, names: Iterable[str]) -> str:
        return min(names, key=lambda name: self._ways[name].microseconds)

    @cached_property
    def _ways(self) -> dict[str, Way]:
        """What each way to a squared norm takes for one sample."""
        d = len(self.geometry.stride)
        groups, kernel = self.geometry.groups, math.prod(self.shape[2:])
        positions = self.patched.shape[1] * math.prod(self.pointwise.shape[3:])
        sources = self.patched.shape[1] * math.prod(self.patched.shape[3 : 3 + d])
        n_in, n_out = math.prod(self.shape[1:]), self.shape[0] // groups
        weights = groups * n_in * n_out
        patches, flipped = groups * positions * n_in, groups * sources * n_out * kernel
        sides = self.patched[0].numel() + self.pointwise[0].numel()
        at_once = _samples_at_once(weights)
        lanes = _LANES * math.ceil(n_out / _LANES)
        copied = 0 if self._is_of_points() else patches
        ways = {
            "patches": Way(
                _PATCHES.of(copied, positions * weights, weights), max(patches, weights)
            ),
            "flipped patches": Way(
                _FLIPPED.of(flipped if kernel > 1 else 0, sources * weights, weights),
                max(flipped, weights),
            ),
            "kernel": Way(
                _KERNEL._replace(start=_KERNEL.start / at_once).of(
                    sides, groups * positions * n_in * lanes, weights
                ),
                weights,
            ),
            "gram": Way(
                _GRAM.of(copied, groups * positions**2 * (n_in + n_out), groups * positions**2),
                max(patches, groups * positions**2),
            ),
        }
        if any(step > 1 for step in self.geometry.stride):
            ways["flipped patches"] = _IMPOSSIBLE
        if self.patched.device.type != "cpu":
            ways["kernel"] = _IMPOSSIBLE  # a kernel for few samples is quick to start on a CPU only
        if self.patched.is_complex():
            ways["gram"] = _IMPOSSIBLE
        return ways

    def _by_patches(self, rows: slice) -> Tensor:
        patches, points = self._factors(rows)
        product = points @ patches.mT
        return product.reshape(len(product), *self.shape)

    def _by_flipped_patches(self, rows: slice) -> Tensor:
        """Patches of the pointwise side instead, which may have far fewer channels.

        Σ_t point[t] patched[t + aκ - p] = Σ_u patched[u] point[u + p - aκ], for a stride of one:
        with κ counted from the other end these are patches with padding a(K - 1) - p.
        """
        patched, pointwise = self.patched[rows], self.pointwise[rows]
        m, r = patched.shape[:2]
        groups, kernel, spatial = self.geometry.groups, self.shape[2:], patched.shape[3:]
        spans = zip(self.geometry.dilation, kernel, self.geometry.padding, strict=True)
        padding = tuple(step * (size - 1) - pad for step, size, pad in spans)
        flipped = replace(self.geometry, padding=padding)
        windows = unfold(pointwise.flatten(0, 1), kernel, spatial, flipped)
        layout = (m, r, groups, -1, math.prod(spatial))
        product = _joined(windows.reshape(layout)) @ _joined(patched.reshape(layout)).mT
        # (m, groups, out, *kernel, in) to (m, groups, out, in, *kernel)
        weights = product.reshape(m, groups, -1, *kernel, product.shape[-1]).movedim(-1, 3)
        return weights.flip([4 + k for k in range(len(kernel))]).reshape(m, *self.shape)

    def _by_kernel(self, rows: slice) -> Tensor:
        """The ordinary weight gradient of some samples at a time: quickest for large layers."""
        gradients = list(self._by_few(rows))
        return torch.cat(gradients) if len(gradients) > 1 else gradients[0]

    def _by_few(self, rows: slice) -> Iterator[Tensor]:
        """Gradients (m, *shape) of samples that take a channel group each, so that they stay apart.

        One by one a thread waits for the others at each of them; all at once leave the cache.
        """
        patched, pointwise = self.patched[rows], self.pointwise[rows]
        inputs, outputs = (pointwise, patched) if self.geometry.transposed else (patched, pointwise)
        size = _samples_at_once(self.shape.numel())
        for few in zip(inputs.split(size), outputs.split(size), strict=True):
            m = len(few[0])
            x, gradient = (side.transpose(0, 1).flatten(1, 2) for side in few)
            weight = x.new_empty(m * self.shape[0], *self.shape[1:])  # only its shape is read
            geometry = replace(self.geometry, groups=m * self.geometry.groups)
            yield weight_gradient(x, gradient, weight, geometry).unflatten(0, (m, -1))

    def _norms_by_kernel(self) -> Tensor:
        """Gradients are squared while they are in cache, and never stacked."""
        return torch.cat([sum_of_squares(gradients) for gradients in self._by_few(slice(None))])

    def _gram_norm(self) -> Tensor:
        groups = self.geometry.groups
        norms, trusted = [], []
        for rows in row_blocks(self.n, self._ways["gram"].numbers):
            patches, points = (factor.flatten(0, 1).mT for factor in self._factors(rows))
            block_norms, block_trusted = gram_norm(patches, points)
            norms.append(block_norms.reshape(-1, groups).sum(1))
            trusted.append(block_trusted.reshape(-1, groups).all(1))
        return dense_where_distrusted(self, torch.cat(norms), torch.cat(trusted))

    def _factors(self, rows: slice, channels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Patches (m, groups, in / groups * kernel, positions) and points (…, out / groups, …)."""
        patched, pointwise = self.patched[rows], self.pointwise[rows]
        if channels is not None:
            patched = in_basis(patched, channels, 2)
        m, r = patched.shape[:2]
        groups, kernel, spatial = self.geometry.groups, self.shape[2:], pointwise.shape[3:]
        windows = unfold(patched.flatten(0, 1), kernel, spatial, self.geometry)
        layout = (m, r, groups, -1, math.prod(spatial))
        return _joined(windows.reshape(layout)), _joined(pointwise.reshape(layout))

    _DENSE: ClassVar[dict[str, Callable[[ConvolutionContribution, slice], Tensor]]] = {
        "patches": _by_patches,
        "flipped patches": _by_flipped_patches,
        "kernel": _by_kernel,
    }


def _joined(factor: Tensor) -> Tensor:
    """(m, r, groups, features, positions) as (m, groups, features, r * positions)."""
    if factor.shape[1] == 1:
        return factor[:, 0]
    return factor.permute(0, 2, 3, 1, 4).flatten(3)


def _samples_at_once(weights: int) -> int:
    return max(1, min(_AT_ONCE, BLOCK_NUMBERS // max(1, weights)))


def weight_gradient(
    x: Tensor, gradient: Tensor, weight: Tensor, geometry: ConvolutionGeometry
) -> Tensor:
    """The gradient of a convolution's weight, summed over a batch."""
    _, weight_gradient, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None,
        geometry.stride, geometry.padding, geometry.dilation, geometry.transposed,
        geometry.output_padding, geometry.groups, (False, True, False),
    )  # fmt: skip
    return weight_gradient


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

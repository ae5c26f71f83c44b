"""Which dimension of a tensor runs over the samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Owners:
    """The sample to which each of some slices belongs; equal where the content is.

    Parameters
    ----------
    samples : Tensor of shape (m,), int64
        A sample for every slice, on the CPU, where it is looked at.
    n : int
        Samples in the batch; some may have no slice.
    """

    samples: Tensor
    n: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Owners) and torch.equal(self.samples, other.samples)

    def __hash__(self) -> int:
        return hash(len(self.samples))

    def padded(self, slices: Tensor) -> Tensor:
        """Slices (m, ...) by sample, (n, most slices of one, ...), filled up with zeros."""
        places, most = self._places
        filled = slices.new_zeros(self.n, most, *slices.shape[1:])
        filled[self.samples.to(slices.device), places.to(slices.device)] = slices
        return filled

    @cached_property
    def _places(self) -> tuple[Tensor, int]:
        """How many slices of the same sample come before each, and the most that one has.

        That is at least one: a batch without any adds zeros, not sums over nothing.
        """
        counts = torch.bincount(self.samples, minlength=self.n)
        order = self.samples.argsort(stable=True)
        starts = (counts.cumsum(0) - counts)[self.samples[order]]
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device) - starts
        return places, max(1, int(counts.max()))


class BatchAxis(NamedTuple):
    """The dimension of a tensor in which the samples lie.

    Entry ``(o * n + i) * inner + j`` along ``dim`` belongs to sample i, for every o < ``outer``
    and j < ``inner``. An ordinary batch has ``outer = inner = 1``.

    What a mask picks has another number of slices from every sample. There ``owners`` tells whose
    each of ``n`` slices is; functions that treat the slices alike treat the samples alike, too.
    """

    dim: int
    n: int
    outer: int = 1
    inner: int = 1
    owners: Owners | None = None

    @property
    def size(self) -> int:
        """Length of the dimension."""
        return self.outer * self.n * self.inner

    def at(self, dim: int) -> BatchAxis:
        """The same division, along another dimension."""
        return self if dim == self.dim else self._replace(dim=dim)

    def matches(self, tensor: Tensor) -> bool:
        """Whether a tensor is long enough to have this axis."""
        return tensor.ndim > self.dim and tensor.shape[self.dim] == self.size

    def samples_first(self, tensor: Tensor) -> Tensor:
        """(n, outer, inner, *other dimensions), a view where that is possible.

        Where samples have different numbers of slices, they are filled up with zeros.
        """
        if self.owners is not None:
            return self.owners.padded(tensor.movedim(self.dim, 0)).unsqueeze(2)
        split = tensor.unflatten(self.dim, (self.outer, self.n, self.inner))
        return split.movedim((self.dim + 1, self.dim, self.dim + 2), (0, 1, 2))

    def sum_by_sample(self, tensor: Tensor, n: int) -> Tensor:
        """The slices of each of n samples added, (n, *other dimensions)."""
        if self.owners is None:
            return self.samples_first(tensor).sum((1, 2))
        slices = tensor.movedim(self.dim, 0)
        samples = self.owners.samples.to(slices.device)
        return slices.new_zeros(n, *slices.shape[1:]).index_add_(0, samples, slices)

    def rows(self, tensor: Tensor) -> Tensor:
        """(n, positions, features) for a tensor whose last dimension holds features."""
        if self.dim != 0 or self.size != self.n or self.owners is not None:
            tensor = self.samples_first(tensor)
        elif tensor.ndim == 2:
            return tensor.unsqueeze(1)
        # Where there are no features, torch does not find out the number of positions.
        return tensor.reshape(len(tensor), math.prod(tensor.shape[1:-1]), tensor.shape[-1])

    def sample_of_slice(self, device: torch.device | None = None) -> Tensor:
        """The sample to which each slice along the dimension belongs, (size,)."""
        if self.owners is not None:
            return self.owners.samples if device is None else self.owners.samples.to(device)
        return self.slices(torch.arange(self.n, device=device))

    def slices_by_sample(self, n: int) -> Tensor:
        """How many slices each of n samples has, (n,) int64."""
        if self.owners is None:
            return torch.full((n,), self.outer * self.inner)
        return torch.bincount(self.owners.samples, minlength=n)

    def slices(self, samples: Tensor) -> Tensor:
        """Places along the dimension of as many samples, in the order in which they lie, (size,).

        ``samples`` (n,) says which sample stands where; slices of one keep their order.
        """
        return samples.repeat_interleave(self.inner).repeat(self.outer)

    def chosen(self, tensor: Tensor, samples: Tensor) -> Tensor:
        """The tensor with ``samples[i]`` in the place of sample i."""
        split = tensor.unflatten(self.dim, (self.outer, self.n, self.inner))
        return split.index_select(self.dim + 1, samples).flatten(self.dim, self.dim + 2)

    def shadow(self, shape: torch.Size, device: torch.device) -> Tensor:
        """One plus the sample to which each element of a tensor belongs."""
        layout = [1] * len(shape)
        layout[self.dim] = self.size
        # Contiguous, because view() refuses strides of zero.
        return self.marks(device).reshape(layout).expand(shape).contiguous()

    def marks(self, device: torch.device) -> Tensor:
        """One plus the sample of each slice, (size,), exact whatever torch's default dtype is."""
        return self.sample_of_slice(device).float() + 1


def axis_of_shadow(shadow: Tensor, n: int) -> BatchAxis | None:
    """Read the axis off a shadow; None if there is no one axis.

    Zeros belong to no sample.
    """
    ragged = None
    for dim in range(shadow.ndim):
        others = [d for d in range(shadow.ndim) if d != dim]
        line = shadow.amax(others) if others and shadow.numel() else shadow.flatten()
        layout = [1] * shadow.ndim
        layout[dim] = -1
        if len(line) != shadow.shape[dim]:
            continue
        if not ((shadow == line.reshape(layout)) | (shadow == 0)).all():
            continue
        axis = _axis_of_line(line, dim, n)
        if axis is not None:
            return axis
        if ragged is None and (line > 0).all():
            ragged = BatchAxis(dim, len(line), owners=Owners(line.long() - 1, n))
    return ragged


def _axis_of_line(line: Tensor, dim: int, n: int) -> BatchAxis | None:
    if len(line) == 0 or len(line) % n:
        return None
    inner = int((line != line[0]).int().argmax())
    if inner == 0 or len(line) % (n * inner):
        return None
    axis = BatchAxis(dim, n, outer=len(line) // (n * inner), inner=inner)
    return axis if torch.equal(line, axis.marks(line.device)) else None

"""Which dimension of a tensor runs over the samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchAxis:
    """The dimension of a tensor in which the samples lie.

    Entry ``(o * n + i) * inner + j`` along ``dim`` belongs to sample i, for every o < ``outer``
    and j < ``inner``. An ordinary batch has ``outer = inner = 1``.
    """

    dim: int
    n: int
    outer: int = 1
    inner: int = 1

    @property
    def size(self) -> int:
        """Length of the dimension."""
        return self.outer * self.n * self.inner

    def at(self, dim: int) -> BatchAxis:
        """The same division, along another dimension."""
        return BatchAxis(dim, self.n, self.outer, self.inner)

    def matches(self, tensor: Tensor) -> bool:
        """Whether a tensor is long enough to have this axis."""
        return tensor.ndim > self.dim and tensor.shape[self.dim] == self.size

    def samples_first(self, tensor: Tensor) -> Tensor:
        """(n, outer, inner, *other dimensions), a view where that is possible."""
        split = tensor.unflatten(self.dim, (self.outer, self.n, self.inner))
        return split.movedim((self.dim + 1, self.dim, self.dim + 2), (0, 1, 2))

    def rows(self, tensor: Tensor) -> Tensor:
        """(n, positions, features) for a tensor whose last dimension holds features."""
        return self.samples_first(tensor).reshape(self.n, -1, tensor.shape[-1])

    def sample_of_slice(self, device: torch.device | None = None) -> Tensor:
        """The sample to which each slice along the dimension belongs, (size,)."""
        samples = torch.arange(self.n, device=device)
        return samples.repeat_interleave(self.inner).repeat(self.outer)

    def shadow(self, shape: torch.Size, device: torch.device) -> Tensor:
        """One plus the sample to which each element of a tensor belongs."""
        layout = [1] * len(shape)
        layout[self.dim] = self.size
        # Contiguous, because view() refuses strides of zero.
        return (self.sample_of_slice(device) + 1.0).reshape(layout).expand(shape).contiguous()


def axis_of_shadow(shadow: Tensor, n: int) -> BatchAxis | None:
    """Read the axis off a shadow; zeros belong to no sample. None if there is no one axis."""
    for dim in range(shadow.ndim):
        others = [d for d in range(shadow.ndim) if d != dim]
        line = shadow.amax(others) if others else shadow
        axis = _axis_of_line(line, dim, n)
        if axis is None:
            continue
        layout = [1] * shadow.ndim
        layout[dim] = -1
        if ((shadow == line.reshape(layout)) | (shadow == 0)).all():
            return axis
    return None


def _axis_of_line(line: Tensor, dim: int, n: int) -> BatchAxis | None:
    if len(line) == 0 or len(line) % n:
        return None
    inner = int((line != line[0]).int().argmax())
    if inner == 0 or len(line) % (n * inner):
        return None
    axis = BatchAxis(dim, n, outer=len(line) // (n * inner), inner=inner)
    return axis if torch.equal(line, axis.sample_of_slice(line.device) + 1.0) else None

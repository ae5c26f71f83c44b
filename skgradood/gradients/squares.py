"""Sums of squared coordinates, formed block by block so that a block is squared while in cache.

Coordinates of m samples come as rows (m, k), or as factors left (m, p, t) and right (m, q, t) of
them, k = pq, which are multiplied here: of a large layer all coordinates of one sample are more
than a cache holds, and to write them, square them and weigh them one after the other takes three
times as long as to do so in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skgradood.gradients.precision import in_float64, sum_dtype, widened
from skgradood.gradients.sums import BLOCK_NUMBERS, in_range, is_nonzero, out_of_range

# Numbers in a block; sums within one are in its own precision, between blocks in `sum_dtype`.
_BLOCK = 1 << 18
# Shorter rows are summed in `sum_dtype`: it costs nothing, and what a library of float32 products
# makes of one row beside others, and alone, does not show.
SHORT_ROW = 64
# Rows that are added in their own precision before they go into a sum in float64.
_ROWS_A_SUM = 64


class Block(NamedTuple):
    """Some coordinates of some samples, (m, c); gone when the next block comes.

    ``memory`` is where their squares may be written.
    """

    samples: slice
    coordinates: slice
    values: Tensor
    memory: Tensor

    def squares(self) -> Tensor:
        """Squares (m, c), after which the values may be gone."""
        return torch.mul(self.values, self.values, out=self.memory)


class Rows:
    """Coordinates as they are, (m, ...); ``like`` has their dtype and device."""

    def __init__(self, rows: Tensor) -> None:
        flat = rows.reshape(len(rows), -1)
        self.flat = self.like = widened(flat) if flat.shape[1] <= SHORT_ROW else flat
        self.shape = flat.shape

    def blocks(self) -> Iterator[Block]:
        """All coordinates, those of all samples one after the other."""
        m, k = self.shape
        spare = self.flat.new_empty(min(m * k, _BLOCK))
        for coordinates in slices(k, _BLOCK):
            length = coordinates.stop - coordinates.start
            for samples in slices(m, _BLOCK // length):
                part = self.flat[samples, coordinates]
                memory = spare[: part.numel()].view(part.shape)
                yield Block(samples, coordinates, part, memory)

    def of(self, samples: slice) -> Rows:
        """Those of some samples."""
        return Rows(self.flat[samples])

    def whole(self) -> Tensor:
        """All at once, (m, k)."""
        return self.flat

    def exactly(self, sample: int) -> Tensor:
        """One sample's in float64, (k,)."""
        return self.flat[sample].double()

    def is_nonzero(self) -> Tensor:
        """Which samples have a number other than zero, (m,) bool."""
        return is_nonzero(self.flat)


class Products:
    """Coordinates as sums of products, Σ_t left[m, p, t] right[m, q, t]; ``like`` likewise."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right
        self.like = left
        self.shape = torch.Size((len(left), left.shape[1] * right.shape[1]))

    def blocks(self) -> Iterator[Block]:
        """All coordinates, those of all samples one after the other."""
        m, p, q = len(self.left), self.left.shape[1], self.right.shape[1]
        spare = self.left.new_empty(min(m * p * q, max(_BLOCK, q)))
        for rows in slices(p, _BLOCK // q):
            length = rows.stop - rows.start
            for samples in slices(m, _BLOCK // (length * q)):
                left, right = self.left[samples, rows], self.right[samples]
                out = spare[: len(left) * length * q].view(len(left), length, q)
                product = torch.bmm(left, right.mT, out=out).view(len(left), -1)
                yield Block(samples, slice(rows.start * q, rows.stop * q), product, product)

    def of(self, samples: slice) -> Products:
        """Those of some samples."""
        return Products(self.left[samples], self.right[samples])

    def whole(self) -> Tensor:
        """All at once, (m, k)."""
        return (self.left @ self.right.mT).flatten(1)

    def exactly(self, sample: int) -> Tensor:
        """One sample's in float64, (k,)."""
        return (self.left[sample].double() @ self.right[sample].double().mT).flatten()

    def is_nonzero(self) -> Tensor:
        """Which samples have a number other than zero in both factors, (m,) bool."""
        return is_nonzero(self.left) & is_nonzero(self.right)


def weighted_sums_of_squares(source: Rows | Products, weights: Sequence[Tensor | None]) -> Tensor:
    """Σ_j w_j r_ij² of every sample, for several weights.

    Parameters
    ----------
    source : Rows or Products
        Coordinates in float32 or float64; what squares beyond its range is kept.
    weights : sequence of (Tensor of k numbers, or None)
        Not negative. None: all one.

    Returns
    -------
    Tensor of shape (number of weights, m), in the device's `sum_dtype`
    """
    flat = [w if w is None else w.reshape(-1).to(source.like.dtype) for w in weights]
    if not source.like.is_cpu:  # where looking for rows that overflow would make the device wait
        return torch.cat(
            [torch.stack([_weighted_norms(rows, w) for w in flat]) for rows in _whole_rows(source)],
            dim=1,
        )
    sums = torch.zeros(len(flat), source.shape[0], dtype=torch.float64)
    for block in source.blocks():
        squares = block.squares()
        for total, w in zip(sums, flat, strict=True):
            part = squares.sum(1) if w is None else squares @ w[block.coordinates]
            total[block.samples] += part
    if not in_range(sums):
        for sample in (out_of_range(sums).any(0) & source.is_nonzero()).nonzero()[:, 0].tolist():
            squares = source.exactly(sample).square()
            for total, given in zip(sums, weights, strict=True):
                w = None if given is None else given.reshape(-1).double()
                total[sample] = squares.sum() if w is None else squares @ w
    return sums


def sum_of_squares_over_rows(source: Rows | Products) -> Tensor:
    """Σ_i r_ij² of every coordinate, (k,); of many samples in float64."""
    if not source.like.is_cpu:
        wide = sum_dtype(source.like.device)
        parts = [rows.square().sum(0, dtype=wide) for rows in _whole_rows(source)]
        return torch.stack(parts).sum(0)
    total: Tensor | None = None
    for samples in slices(source.shape[0], _ROWS_A_SUM):
        partial = source.like.new_zeros(source.shape[1])
        for block in source.of(samples).blocks():
            if len(block.values) == 1:
                partial[block.coordinates].addcmul_(block.values[0], block.values[0])
            else:
                partial[block.coordinates] += block.squares().sum(0)
        total = accumulated(total, partial)
    assert total is not None
    if is_in_range(total) or not source.is_nonzero().any():
        return total
    total = torch.zeros(source.shape[1], dtype=torch.float64)
    for sample in range(source.shape[0]):
        total += source.exactly(sample).square()
    return total


def accumulated(total: Tensor | None, part: Tensor) -> Tensor:
    """A sum with one more part, in float64 from the second part on; it may be changed in place."""
    if total is None:
        return part
    # In place: a sum may be as large as the tensor, and parts come for every few rows.
    total = in_float64(total)
    return total.add_(part.to(total.device))


def is_in_range(total: Tensor) -> bool:
    """Whether sums of squares over samples have not left the range of float32."""
    return total.numel() == 0 or in_range(total.max())


def _weighted_norms(rows: Tensor, weights: Tensor | None) -> Tensor:
    weighted = rows if weights is None else rows * weights.sqrt()
    return torch.linalg.vector_norm(weighted, dim=1, dtype=sum_dtype(rows.device)).square()


def _whole_rows(source: Rows | Products) -> Iterator[Tensor]:
    m, k = source.shape
    return (source.of(samples).whole() for samples in slices(m, BLOCK_NUMBERS // k))


def slices(length: int, size: int) -> list[slice]:
    """Slices of at most ``size``, and at least one, that cover ``length``."""
    size = max(1, size)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]

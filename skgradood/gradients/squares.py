"""Sums of squared coordinates, formed block by block so that a block is squared while in cache.

Coordinates of m samples come as rows (m, k), or as factors left (m, p, t) and right (m, q, t) of
them, k = pq, which are multiplied here: of a large layer all coordinates of one sample are more
than a cache holds, and to write them, square them and weigh them one after the other takes three
times as long as to do so in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from skgradood.gradients.precision import in_float64, sum_dtype, widened
from skgradood.gradients.sums import BLOCK_NUMBERS, in_range, is_nonzero, out_of_range

# Numbers in a block; sums within one are in its own precision, between blocks in `sum_dtype`.
_BLOCK = 1 << 20
# Rows, and columns, of a product in a block, or numbers of a row, at most. A block then has several
# samples, so that threads take some each, and is not long and narrow: otherwise it may take three
# times as long.
_SIDE = 512
_RUN = 1 << 18
# Shorter rows are summed in `sum_dtype`: it costs nothing, and what a library of float32 products
# makes of one row beside others, and alone, does not show.
SHORT_ROW = 64
# Rows that are added in their own precision before they go into a sum in float64.
_ROWS_A_SUM = 64
# Coordinates of a sample in a block from which it is added by itself: a sum over few samples takes
# many times as long. For shorter ones calls take longer.
_LONG = 1 << 15

# Slices of each dimension of the coordinates.
Place = tuple[slice, ...]


class Block(NamedTuple):
    """Some coordinates of some samples, (m, *place); gone when the next block comes.

    ``memory`` is where their squares may be written.
    """

    samples: slice
    values: Tensor
    memory: Tensor

    def squares(self) -> Tensor:
        """Squares (m, *place), after which the values may be gone."""
        return torch.mul(self.values, self.values, out=self.memory)


class Rows:
    """Coordinates as they are, (m, ...); ``like`` has their dtype and device.

    ``sizes`` are those of the coordinates' dimensions, here one.
    """

    def __init__(self, rows: Tensor) -> None:
        flat = rows.reshape(len(rows), -1)
        self.flat = self.like = widened(flat) if flat.shape[1] <= SHORT_ROW else flat
        self.m, *self.sizes = flat.shape

    def places(self) -> Iterator[Place]:
        """Divide the coordinates into those of one block."""
        run = min(max(_RUN, _BLOCK // max(1, self.m)), _BLOCK)
        return ((numbers,) for numbers in slices(self.sizes[0], run))

    def blocks(self, place: Place) -> Iterator[Block]:
        """Those of all samples, one block after the other."""
        (numbers,) = place
        length = numbers.stop - numbers.start
        some = slices(self.m, _BLOCK // max(1, length))
        spare = self.flat.new_empty(min(self.m, some[0].stop), length)
        for samples in some:
            part = self.flat[samples, numbers]
            yield Block(samples, part, spare[: len(part)])

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
    """Coordinates as sums of products, Σ_t left[m, p, t] right[m, q, t]; ``like`` likewise.

    ``sizes`` are p and q.
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right
        self.like = left
        self.m, *self.sizes = len(left), left.shape[1], right.shape[1]

    def places(self) -> Iterator[Place]:
        """Divide the coordinates into those of one block."""
        p, q = self.sizes
        width = min(_SIDE, q, _BLOCK)
        height = min(_SIDE, _BLOCK // max(1, width))
        return ((rows, columns) for rows in slices(p, height) for columns in slices(q, width))

    def blocks(self, place: Place) -> Iterator[Block]:
        """Those of all samples, one block after the other."""
        left, right = self.left[:, place[0]], self.right[:, place[1]].mT
        shape = left.shape[1], right.shape[2]
        some = slices(self.m, _BLOCK // max(1, math.prod(shape)))
        spare = self.left.new_empty(some[0].stop, *shape)
        for samples in some:
            out = spare[: samples.stop - samples.start]
            product = torch.bmm(left[samples], right[samples], out=out)
            yield Block(samples, product, product)

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


def weighted_sums_of_squares(
    source: Rows | Products, weights: Tensor, *, with_norms: bool = False
) -> Tensor:
    """Σ_j w_j r_ij² of every sample, after Σ_j r_ij² if that is wanted.

    Parameters
    ----------
    source : Rows or Products
        Coordinates in float32 or float64; what squares beyond its range is kept.
    weights : Tensor of k numbers
        Not negative.
    with_norms : bool, default=False
        Whether to return squared norms, too.

    Returns
    -------
    Tensor of shape (1, m) or (2, m), in the device's `sum_dtype`
    """
    weights = weights.reshape(source.sizes)
    w = weights.to(source.like.dtype)
    if not source.like.is_cpu:  # where looking for rows that overflow would make the device wait
        kinds = [None, w.flatten()] if with_norms else [w.flatten()]
        return torch.cat(
            [torch.stack([_norms(rows, kind) for kind in kinds]) for rows in _whole_rows(source)],
            dim=1,
        )
    sums = torch.zeros(1 + with_norms, source.m, dtype=torch.float64)
    norms, forms = sums[0], sums[-1]
    for place in source.places():
        here = w[place].contiguous()
        for block in source.blocks(place):
            squares = block.squares()
            if with_norms:
                norms[block.samples].add_(squares.flatten(1).sum(1))
            # Not a product with a vector, which adds up long rows in few digits.
            weighted = torch.mul(squares, here, out=block.memory)
            forms[block.samples].add_(weighted.flatten(1).sum(1))
    if not in_range(sums):
        exact = weights.flatten().double()
        for sample in (out_of_range(sums).any(0) & source.is_nonzero()).nonzero()[:, 0].tolist():
            squares = source.exactly(sample).square()
            sums[0, sample] = squares.sum()
            sums[-1, sample] = squares @ exact
    return sums


def sum_of_squares_over_rows(source: Rows | Products) -> Tensor:
    """Σ_i r_ij² of every coordinate, (k,); of many samples in float64."""
    if not source.like.is_cpu:
        wide = sum_dtype(source.like.device)
        parts = [rows.square().sum(0, dtype=wide) for rows in _whole_rows(source)]
        return torch.stack(parts).sum(0)
    total: Tensor | None = None
    for samples in slices(source.m, _ROWS_A_SUM):
        partial = source.like.new_zeros(source.sizes)
        some = source.of(samples)
        for place in some.places():
            here = partial[place]
            for block in some.blocks(place):
                if here.numel() < _LONG:
                    here += block.squares().sum(0)
                    continue
                for values in block.values.unbind():
                    here.addcmul_(values, values)
        total = accumulated(total, partial.flatten())
    assert total is not None
    if is_in_range(total) or not source.is_nonzero().any():
        return total
    total = torch.zeros(total.shape, dtype=torch.float64)
    for sample in range(source.m):
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


def _norms(rows: Tensor, weights: Tensor | None) -> Tensor:
    weighted = rows if weights is None else rows * weights.sqrt()
    return torch.linalg.vector_norm(weighted, dim=1, dtype=sum_dtype(rows.device)).square()


def _whole_rows(source: Rows | Products) -> Iterator[Tensor]:
    size = BLOCK_NUMBERS // max(1, math.prod(source.sizes))
    return (source.of(samples).whole() for samples in slices(source.m, size))


def slices(length: int, size: int) -> list[slice]:
    """Slices of at most ``size``, and at least one, that cover ``length``."""
    size = max(1, size)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]

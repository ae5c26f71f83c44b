"""Per-sample gradients of one parameter tensor, kept in the form in which they arise.

A contribution is what one use of a parameter adds to its gradient, for all n samples of a
batch. Linear maps and convolutions keep activations and output gradients, from which a squared
norm often follows at less cost than the gradient itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from skgradood.gradients.costs import WRITTEN
from skgradood.gradients.precision import is_half, whole_precision
from skgradood.gradients.sums import (
    BLOCK_NUMBERS,
    inner_products,
    is_nonzero,
    least_share,
    out_of_range,
    row_blocks,
    sum_of_squares,
)


class Factors(NamedTuple):
    """Gradients as products over positions, without forming them.

    A weight, viewed as a matrix of its first dimension against all others, has the gradient
    G[(b, p), q] = Σ_t left[b, p, t] right[b, q, t], for b groups of channels.

    Attributes
    ----------
    left : Tensor of shape (m, b, p, positions)
        Output gradients of a linear map or convolution; input of a transposed one.
    right : Tensor of shape (m, b, q, positions)
        Activations, or their patches under a kernel; the other way round if transposed.
    """

    left: Tensor
    right: Tensor


class FactorLayout(NamedTuple):
    """How a gradient is a sum of products.

    Attributes
    ----------
    groups : int
        Groups of channels.
    positions : int
        Terms of the sum.
    places : int
        Where the channels of the weight's second dimension lie before patches are taken: with a
        stride there are more of them than positions.
    copied : int
        Numbers of one sample that are copied into patches.
    """

    groups: int
    positions: int
    places: int
    copied: int = 0


class Contribution(ABC):
    """What one use of a parameter tensor adds to the gradients of n samples.

    Attributes
    ----------
    n : int
        Samples.
    shape : torch.Size
        Shape of the parameter tensor.
    """

    n: int
    shape: torch.Size

    @abstractmethod
    def dense(self, rows: slice) -> Tensor:
        """Gradients of the samples in ``rows``, (m, *shape)."""

    def squared_norm(self) -> Tensor:
        """Squared norms, (n,) in the device's `sum_dtype`; from dense gradients, block by block."""
        blocks = row_blocks(self.n, self.numbers_a_row())
        norms = [sum_of_squares(self.dense(rows)) for rows in blocks]
        return norms[0] if len(norms) == 1 else torch.cat(norms)

    def numbers_a_row(self) -> int:
        """Numbers that one sample's dense gradient takes on the way."""
        return math.prod(self.shape)

    def factor_layout(self) -> FactorLayout | None:
        """Layout of `factors`; None where the gradient is no sum of products."""
        return None

    def factors(self, rows: slice, channels: Tensor | None = None) -> Factors:
        """The factors for the samples in ``rows``, where there is a layout.

        ``channels`` (size of the weight's second dimension, k) are vectors, with which that
        dimension is multiplied: of patches much quicker before they are taken than after.
        """
        raise NotImplementedError(f"{type(self).__name__} is no sum of products")

    def cost(self) -> float:
        """What `dense` takes for one sample, see `skgradood.gradients.costs`."""
        return WRITTEN * math.prod(self.shape)

    def form(self) -> Hashable:
        """What contributions have in common that can be `joined`; by default nobody else has it."""
        return id(self)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The sum of several of one form, as one."""
        raise NotImplementedError(f"{cls.__name__} of several uses cannot be joined")


class ProductContribution(Contribution):
    """A sum of products, whose norm may follow from the factors."""

    @abstractmethod
    def is_nonzero(self) -> Tensor:
        """Which samples have a number other than zero in both factors, (n,) bool."""


def in_basis(tensor: Tensor, vectors: Tensor, dim: int) -> Tensor:
    """A dimension of a tensor multiplied with the rows of (size, k)."""
    flat = tensor.flatten(dim + 1) if tensor.ndim > dim + 1 else tensor[..., None]
    product = vectors.to(tensor.dtype).mT @ flat
    return product.reshape(*tensor.shape[:dim], -1, *tensor.shape[dim + 1 :])


@dataclass
class DenseContribution(Contribution):
    """Gradients that are already there, (n, *shape)."""

    gradients: Tensor
    _squared_norm: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = self.gradients.shape
        self.n, self.shape = shape[0], shape[1:]

    def dense(self, rows: slice) -> Tensor:
        return self.gradients[rows]

    def cost(self) -> float:
        return 0.0

    def form(self) -> Hashable:
        return DenseContribution, self.gradients.dtype

    @classmethod
    def joined(cls, parts: Sequence[DenseContribution]) -> DenseContribution:
        total = parts[0].gradients.clone()
        for part in parts[1:]:
            total += part.gradients
        return cls(total)

    def squared_norm(self) -> Tensor:
        if self._squared_norm is None:  # a weight may ask for its bias's again
            in_blocks = is_half(self.gradients)  # of which each is made wide
            self._squared_norm = (
                super().squared_norm() if in_blocks else sum_of_squares(self.gradients)
            )
        return self._squared_norm


@dataclass
class OuterContribution(ProductContribution):
    """A linear map's weight: Σ over positions of output gradient ⊗ activation.

    ``activations`` is (n, positions, in), ``output_gradients`` (n, positions, out).
    The weight is stored as (out, in), or (in, out) if ``transposed``, and viewed as ``shape``.
    ``of_bias`` is what the bias of the same map receives, if it has one.
    """

    activations: Tensor
    output_gradients: Tensor
    shape: torch.Size
    transposed: bool = False
    of_bias: DenseContribution | None = None

    def __post_init__(self) -> None:
        self.n = self.activations.shape[0]

    def dense(self, rows: slice) -> Tensor:
        a, g = self.activations[rows], self.output_gradients[rows]
        product = a.mT @ g if self.transposed else g.mT @ a
        return product.reshape(len(product), *self.shape)

    def factor_layout(self) -> FactorLayout | None:
        _, positions, width = self._left().shape
        return FactorLayout(1, positions, positions) if self.shape[:1] == (width,) else None

    def factors(self, rows: slice, channels: Tensor | None = None) -> Factors:
        left, right = self._left(), self.activations
        if self.transposed:
            right = self.output_gradients
        transposed = right[rows].mT
        if channels is not None:
            transposed = in_basis(transposed.unflatten(1, (len(channels), -1)), channels, 1)
            transposed = transposed.flatten(1, 2)
        return Factors(left[rows].mT[:, None], transposed[:, None])

    def cost(self) -> float:
        return (self.activations.shape[1] + WRITTEN) * math.prod(self.shape)

    def form(self) -> Hashable:
        dtypes = self.activations.dtype, self.output_gradients.dtype
        return OuterContribution, self.shape, self.transposed, dtypes

    @classmethod
    def joined(cls, parts: Sequence[OuterContribution]) -> OuterContribution:
        activations = torch.cat([part.activations for part in parts], dim=1)
        output_gradients = torch.cat([part.output_gradients for part in parts], dim=1)
        return cls(activations, output_gradients, parts[0].shape, parts[0].transposed)

    @property
    def n_rows(self) -> int:
        """Rows of the weight as a matrix, before it is viewed in its shape."""
        return self._left().shape[2]

    def _left(self) -> Tensor:
        return self.activations if self.transposed else self.output_gradients

    def squared_norm(self) -> Tensor:
        _, positions, n_in = self.activations.shape
        n_out = self.output_gradients.shape[2]
        if positions == 1:
            of_outputs = self.of_bias or DenseContribution(self.output_gradients)
            return sum_of_squares(self.activations) * of_outputs.squared_norm()
        if self.activations.is_complex() or positions * (n_in + n_out) > n_in * n_out:
            return self._norms_in_slices()
        norms, trusted = gram_norm(self.activations, self.output_gradients)
        return dense_where_distrusted(self, norms, trusted)

    def _norms_in_slices(self) -> Tensor:
        """From gradients of as many output features at a time as stay in cache."""
        n_in, n_out = self.activations.shape[2], self.output_gradients.shape[2]
        size = max(1, BLOCK_NUMBERS // max(1, n_in))
        if n_out <= size:
            return super().squared_norm()
        parts = [
            OuterContribution(self.activations, part, torch.Size((part.shape[2], n_in)))
            for part in self.output_gradients.split(size, dim=2)
        ]
        return torch.stack([part.squared_norm() for part in parts]).sum(0)

    def is_nonzero(self) -> Tensor:
        return is_nonzero(self.activations) & is_nonzero(self.output_gradients)


def gram_norm(activations: Tensor, output_gradients: Tensor) -> tuple[Tensor, Tensor]:
    """‖Σ_t g_t aᵀ_t‖² = Σ_{t,u} ⟨a_t, a_u⟩⟨g_t, g_u⟩, without forming the gradient.

    Parameters
    ----------
    activations, output_gradients : Tensor
        (n, positions, in) and (n, positions, out).

    Returns
    -------
    norms : Tensor
        (n,) in the device's `sum_dtype`.
    trusted : Tensor
        (n,) bool. Where the terms cancel, their rounding errors weigh more than in the dense
        form (the square of its condition number), and the value should not be used.
    """
    norms, trusted = [], []
    for rows in row_blocks(len(activations), activations.shape[1] ** 2):
        a, g = activations[rows], output_gradients[rows]
        similarity, covariance = (whole_precision(f @ f.mT).flatten(1) for f in (a, g))
        norms.append(inner_products(similarity, covariance))
        bound = inner_products(similarity.abs(), covariance.abs())
        kept = (norms[-1] >= least_share(a) * bound) & bound.isfinite()
        trusted.append(kept & ~out_of_range(norms[-1]))
    return torch.cat(norms), torch.cat(trusted)


def dense_where_distrusted(
    contribution: ProductContribution, norms: Tensor, trusted: Tensor
) -> Tensor:
    """Replace norms that lost their digits to cancellation by ones from dense gradients."""
    if trusted.all():
        return norms
    # What is zero is exact, unless zero met what is beyond the range.
    lost = ~trusted & ((norms != 0) | contribution.is_nonzero())
    for row in lost.nonzero()[:, 0].tolist():
        norms[row] = sum_of_squares(contribution.dense(slice(row, row + 1)))[0]
    return norms


@dataclass
class EmbeddingContribution(Contribution):
    """Rows of a table, (size, width), picked by indices (n, positions)."""

    indices: Tensor
    output_gradients: Tensor
    shape: torch.Size

    def __post_init__(self) -> None:
        self.n = len(self.indices)

    def dense(self, rows: slice) -> Tensor:
        indices, g = self.indices[rows], self.output_gradients[rows]
        table = g.new_zeros(len(g), self.shape[0], g.shape[2])
        table.scatter_add_(1, indices[..., None].expand_as(g), g)
        return table.reshape(len(g), *self.shape)

    def form(self) -> Hashable:
        return EmbeddingContribution, self.shape, self.output_gradients.dtype

    @classmethod
    def joined(cls, parts: Sequence[EmbeddingContribution]) -> EmbeddingContribution:
        indices = torch.cat([part.indices for part in parts], dim=1)
        output_gradients = torch.cat([part.output_gradients for part in parts], dim=1)
        return cls(indices, output_gradients, parts[0].shape)

    def squared_norm(self) -> Tensor:
        _, positions, width = self.output_gradients.shape
        if positions > self.shape[0]:
            return super().squared_norm()
        norms = []
        for rows in row_blocks(self.n, positions * max(positions, width)):
            indices, g = self.indices[rows], whole_precision(self.output_gradients[rows])
            # Positions that pick the same row of the table add up at the first of them.
            first = (indices[:, :, None] == indices[:, None, :]).byte().argmax(2)
            picked = torch.zeros_like(g).scatter_add_(1, first[..., None].expand_as(g), g)
            norms.append(sum_of_squares(picked))
        return torch.cat(norms)


@dataclass
class AlignedContribution(Contribution):
    """A tensor computed from parameters that already has one slice a sample along ``dim``.

    Sample i touches only the slices of ``gradient`` whose entry of ``sample_of_slice`` is i.
    """

    gradient: Tensor
    dim: int
    sample_of_slice: Tensor
    n: int

    def __post_init__(self) -> None:
        self.shape = self.gradient.shape

    def dense(self, rows: slice) -> Tensor:
        samples = torch.arange(self.n, device=self.gradient.device)[rows]
        mine = samples[:, None] == self.sample_of_slice
        layout = [1] * self.gradient.ndim
        layout[self.dim] = -1
        # Not a product: what is not finite in one sample would be so in all.
        return torch.where(mine.reshape(len(samples), *layout), self.gradient, 0)

"""Per-sample gradients of one parameter tensor, kept in the form in which they arise.

A contribution is what one use of a parameter adds to its gradient, for all n samples of a
batch. Linear maps and convolutions keep activations and output gradients, from which a squared
norm often follows at less cost than the gradient itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from skgradood.gradients.precision import sum_dtype

# Dense per-sample gradients are formed in blocks of about this many numbers, to stay in cache.
BLOCK_NUMBERS = 1 << 21

# Rows of more numbers are summed in pieces, on a CPU: of products, of norms, of inner products.
_LONG_ROW = 4096
_PIECE = 256
_NORM_PIECE = 1024
_DOT_PIECE = 1 << 16
SINGLE_OR_DOUBLE = (torch.float32, torch.float64)

# Of squares whose sum is smaller, some may have been below the range of float32.
_LEAST_SUM = 1e-20

# A Gram norm that is a smaller share of its absolute terms than this has lost over three digits.
_LEAST_GRAM_SHARE = 2e-3


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
    """Groups of channels, and positions, of a gradient that is a sum of products."""

    groups: int
    positions: int


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

    def prefers_factors(self) -> bool:
        """Whether their products, in blocks that are not kept, are quicker than `dense`."""
        return False


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


def row_blocks(n: int, numbers_a_row: int) -> list[slice]:
    """Divide n rows into slices whose dense gradients stay in cache."""
    size = max(1, BLOCK_NUMBERS // max(1, numbers_a_row))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def sum_of_squares(gradients: Tensor) -> Tensor:
    """Squared norm of every row of (m, ...), in `sum_dtype`: beyond float32 only in float64."""
    flat = gradients.reshape(gradients.shape[0], -1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten(1)
    if not flat.is_cpu or flat.dtype not in SINGLE_OR_DOUBLE:
        return _summed_norm(flat).square()
    norms = _squared_norms_by_pieces(flat)
    if not in_range(norms):
        lost = out_of_range(norms) & is_nonzero(flat)
        norms[lost] = _summed_norm(flat[lost]).square()
    return norms


def in_range(sums: Tensor) -> bool:
    """Whether no squares, of which these are sums, can have left the range of float32."""
    least, largest = torch.aminmax(sums)
    return least.item() >= _LEAST_SUM and largest.item() < math.inf


def out_of_range(sums: Tensor) -> Tensor:
    """By sums of squares, which of them may miss some that left the range of float32."""
    return (sums < _LEAST_SUM) | ~sums.isfinite()


def is_nonzero(rows: Tensor) -> Tensor:
    """Which rows of (m, ...) have a number other than zero, (m,) bool."""
    return rows.flatten(1).any(1)


def squared_norm_of_one(vector: Tensor) -> float:
    """Squared norm of one vector in float32 or float64 on a CPU, in a call or two.

    Within a piece the library's inner product adds in the vector's precision, to 1e-8 of the sum
    for float32. It is infinite where squares are beyond that precision.
    """
    return sum(float(torch.dot(piece, piece)) for piece in vector.split(_DOT_PIECE))


def _squared_norms_by_pieces(flat: Tensor) -> Tensor:
    """Squared norms of rows, (m,) float64, without a copy of the rows in float64.

    Pieces of long rows add in their own precision.
    """
    if flat.shape[1] <= _LONG_ROW:
        return torch.linalg.vector_norm(flat, dim=1).double().square()
    whole = flat.shape[1] - flat.shape[1] % _NORM_PIECE
    pieces = flat[:, :whole].unflatten(1, (-1, _NORM_PIECE))
    squares = torch.linalg.vector_norm(pieces, dim=2).double().square().sum(1)
    return squares + torch.linalg.vector_norm(flat[:, whole:], dim=1).double().square()


def _summed_norm(flat: Tensor) -> Tensor:
    return torch.linalg.vector_norm(flat, dim=1, dtype=sum_dtype(flat.device))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise inner product of (m, k): products in the dtype given, summed in `sum_dtype`.

    Long rows are summed in short pieces first, which halves the time and costs no digit.
    """
    k, wide = a.shape[1], sum_dtype(a.device)
    if a.dtype == torch.float64 or k <= _LONG_ROW:
        return (a * b).sum(1, dtype=wide)
    whole = k - k % _PIECE
    pieces = (a[:, :whole] * b[:, :whole]).reshape(len(a), -1, _PIECE).sum(2)
    tail = (a[:, whole:] * b[:, whole:]).sum(1, dtype=wide)
    return pieces.sum(1, dtype=wide) + tail


@dataclass
class DenseContribution(Contribution):
    """Gradients that are already there, (n, *shape)."""

    gradients: Tensor
    _squared_norm: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.n = len(self.gradients)
        self.shape = self.gradients.shape[1:]

    def dense(self, rows: slice) -> Tensor:
        return self.gradients[rows]

    def squared_norm(self) -> Tensor:
        if self._squared_norm is None:  # a weight may ask for its bias's again
            self._squared_norm = super().squared_norm()
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
        self.n = len(self.activations)

    def dense(self, rows: slice) -> Tensor:
        a, g = self.activations[rows], self.output_gradients[rows]
        product = a.mT @ g if self.transposed else g.mT @ a
        return product.reshape(len(product), *self.shape)

    def factor_layout(self) -> FactorLayout | None:
        _, positions, width = self._left().shape
        return FactorLayout(1, positions) if self.shape[:1] == (width,) else None

    def factors(self, rows: slice, channels: Tensor | None = None) -> Factors:
        left, right = self._left(), self.activations
        if self.transposed:
            right = self.output_gradients
        transposed = right[rows].mT
        if channels is not None:
            transposed = in_basis(transposed.unflatten(1, (len(channels), -1)), channels, 1)
            transposed = transposed.flatten(1, 2)
        return Factors(left[rows].mT[:, None], transposed[:, None])

    def prefers_factors(self) -> bool:
        return True

    def _left(self) -> Tensor:
        return self.activations if self.transposed else self.output_gradients

    def squared_norm(self) -> Tensor:
        _, positions, n_in = self.activations.shape
        n_out = self.output_gradients.shape[2]
        if positions == 1:
            of_outputs = self.of_bias or DenseContribution(self.output_gradients)
            return sum_of_squares(self.activations) * of_outputs.squared_norm()
        if self.activations.is_complex() or positions * (n_in + n_out) > n_in * n_out:
            return super().squared_norm()
        norms, trusted = gram_norm(self.activations, self.output_gradients)
        return dense_where_distrusted(self, norms, trusted)

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
        similarity, covariance = (a @ a.mT).flatten(1), (g @ g.mT).flatten(1)
        norms.append(_dot(similarity, covariance))
        bound = _dot(similarity.abs(), covariance.abs())
        kept = (norms[-1] >= _LEAST_GRAM_SHARE * bound) & bound.isfinite()
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

    def squared_norm(self) -> Tensor:
        _, positions, width = self.output_gradients.shape
        if positions > self.shape[0]:
            return super().squared_norm()
        norms = []
        for rows in row_blocks(self.n, positions * max(positions, width)):
            indices, g = self.indices[rows], self.output_gradients[rows]
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


@dataclass
class JacobianContribution(Contribution):
    """Gradients cJ that reach a leaf through a parameter-only graph with few outputs.

    ``coefficients`` is (n, q), one row a sample; ``jacobian`` (q, *shape).
    """

    coefficients: Tensor
    jacobian: Tensor

    def __post_init__(self) -> None:
        self.n = len(self.coefficients)
        self.shape = self.jacobian.shape[1:]

    def dense(self, rows: slice) -> Tensor:
        flat = self.coefficients[rows] @ self.jacobian.reshape(len(self.jacobian), -1)
        return flat.reshape(len(flat), *self.shape)

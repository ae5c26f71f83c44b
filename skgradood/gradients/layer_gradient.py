"""What the engine hands to a reducer."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from skgradood.gradients.contributions import (
    Contribution,
    DenseContribution,
    FactorLayout,
    Factors,
)
from skgradood.gradients.precision import is_half, sum_dtype
from skgradood.gradients.shared import tied_norms
from skgradood.gradients.sums import BLOCK_NUMBERS, row_blocks, sum_of_squares


@dataclass
class LayerGradient:
    """Per-sample gradients of one parameter tensor, for consecutive samples of a batch.

    Attributes
    ----------
    name : str
        The parameter's name in ``module.named_parameters()``.
    shape : torch.Size
        The parameter's shape.
    n : int
        Samples covered.
    start : int
        Where they begin in the batch; a strategy may deliver a layer in several pieces.
    dtype, device
        Those of the parameter.
    contributions : list of Contribution
        What each use of the parameter adds; empty where the log-likelihood does not depend on it,
        and of a parameter without elements. They are kept as they were first read: other ones
        make another gradient (``dataclasses.replace``).
    """

    name: str
    shape: torch.Size
    n: int
    dtype: torch.dtype
    device: torch.device
    contributions: list[Contribution] = field(default_factory=list)
    start: int = 0

    def __post_init__(self) -> None:
        # Nothing can be added to no numbers, and torch reshapes and decomposes none of them.
        if 0 in self.shape:
            self.contributions = []

    def squared_norm(self) -> Tensor:
        """Squared norms ‖∂ log p(x_i)/∂θ‖², (n,), on the parameter's device in its `sum_dtype`.

        To be read only: other layers may be told of the same tensor.
        """
        if not self.contributions:
            return torch.zeros(self.n, dtype=sum_dtype(self.device), device=self.device)
        if len(self.contributions) == 1:
            return self.contributions[0].squared_norm()
        found = tied_norms(self.contributions)
        if found is None:
            return torch.cat([sum_of_squares(block) for _, block in self.blocks()])
        return _formed_where_distrusted(self, *found)

    def dense(self, rows: slice = slice(None)) -> Tensor:
        """Gradients of the samples in ``rows``, ``(m, *shape)``; uses sum before anything else."""
        if not self.contributions:
            m = len(range(*rows.indices(self.n)))
            return torch.zeros(m, *self.shape, dtype=self.dtype, device=self.device)
        first, *others = self._in_precision
        total = first.dense(rows)
        for contribution in others:
            total = total + contribution.dense(rows)
        return total

    def pieces(self) -> Iterator[LayerGradient]:
        """The same gradients formed, in blocks of rows that fit the cache.

        For several readers of one layer: each block is formed once, and may be read often.
        Complex numbers become pairs of real ones, in one more dimension.
        """
        for rows, block in self.blocks():
            real = torch.view_as_real(block) if block.is_complex() else block
            yield LayerGradient(
                self.name,
                real.shape[1:],
                len(real),
                real.dtype,
                self.device,
                [DenseContribution(real)],
                self.start + rows.start,
            )

    def is_formed(self) -> bool:
        """Whether it is as one of the `pieces`."""
        return (
            len(self.contributions) == 1
            and isinstance(self.contributions[0], DenseContribution)
            and not (self.dtype.is_complex or is_half(self.contributions[0].gradients))
            and self.n * math.prod(self.shape) <= BLOCK_NUMBERS
        )

    def factor_layout(self) -> FactorLayout | None:
        """Layout of `factors`; None where the gradient is not one real sum of products."""
        if len(self.contributions) != 1 or self.dtype.is_complex:
            return None
        return self.contributions[0].factor_layout()

    def factors(self, rows: slice = slice(None), channels: Tensor | None = None) -> Factors:
        """Factors of those products for the samples in ``rows``, where there is a layout.

        The weight's second dimension is multiplied with ``channels`` (size, k), if given.
        """
        return self._in_precision[0].factors(rows, channels)

    def cost(self) -> float:
        """What `dense` takes for one sample, see `skgradood.gradients.costs`."""
        return sum(contribution.cost() for contribution in self.contributions)

    @cached_property
    def _in_precision(self) -> list[Contribution]:
        """The contributions in the parameter's precision.

        Numbers of three digits serve sums of their squares, but no bases and no directions.
        """
        return [_converted(contribution, self.dtype) for contribution in self.contributions]

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Dense gradients of blocks of rows that fit the cache: ``(rows, (m, *shape))``."""
        for rows in row_blocks(self.n, math.prod(self.shape)):
            yield rows, self.dense(rows)


def _formed_where_distrusted(gradient: LayerGradient, norms: Tensor, trusted: Tensor) -> Tensor:
    """Replace norms whose terms cancelled by those of the gradients themselves."""
    for row in (~trusted).nonzero()[:, 0].tolist():
        norms[row] = sum_of_squares(gradient.dense(slice(row, row + 1)))[0]
    return norms


def _converted(contribution: Contribution, dtype: torch.dtype) -> Contribution:
    """The same in a precision, where it is kept in half of it."""
    changed: dict[str, Tensor | Contribution | list] = {}
    for name, value in vars(contribution).items():
        if isinstance(value, Tensor) and is_half(value):
            changed[name] = value.to(dtype)
        elif isinstance(value, Contribution):
            changed[name] = _converted(value, dtype)
        elif isinstance(value, list) and isinstance(value[0], Contribution):
            changed[name] = [_converted(part, dtype) for part in value]
    if all(changed[name] is getattr(contribution, name) for name in changed):
        return contribution
    converted = copy.copy(contribution)
    vars(converted).update(changed)
    return converted

"""Uses of parts of a parameter, such as the matrix of one expert in a stack of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from skgradood.gradients.contributions import Contribution, OuterContribution
from skgradood.gradients.costs import WRITTEN
from skgradood.gradients.shared import joined


class Part(NamedTuple):
    """Where the elements of a part lie among those of the parameter, in their order in memory."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """One place after the last."""
        last = sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        return self.offset + last + 1 if 0 not in self.size else self.offset

    def of(self, numbers: Tensor) -> Tensor:
        """The part of every row of (m, numbers of the parameter), a view (m, *size)."""
        stride = (numbers.shape[1], *self.stride)
        return numbers.as_strided((len(numbers), *self.size), stride, self.offset)

    def is_injective(self) -> bool:
        """Whether no two of its elements are the same one, as in what is expanded."""
        reached = 0
        for stride, size in sorted(zip(self.stride, self.size, strict=True)):
            if size > 1 and stride <= reached:
                return False
            reached += (size - 1) * stride
        return True


def part_of(tensor: Tensor, whole: Tensor) -> Part | None:
    """The part of a tensor that another one is a view of; None where it is none, or more."""
    if tensor._base is not whole or not whole.is_contiguous() or tensor.dtype != whole.dtype:
        return None
    if tensor.is_conj() or tensor.is_neg():
        return None
    offset = int(tensor.storage_offset() - whole.storage_offset())
    part = Part(tuple(tensor.shape), tensor.stride(), offset)
    return part if part.is_injective() else None


def through_view(contribution: Contribution, part: Part, shape: torch.Size) -> Contribution:
    """What a view of a parameter receives, as the parameter's."""
    if isinstance(contribution, OuterContribution) and part.offset == 0:
        if part == _whole(part.size) and math.prod(part.size) == shape.numel():
            return replace(contribution, shape=shape)
        is_transposed = len(shape) == 2 and part == Part((shape[1], shape[0]), (1, shape[1]), 0)
        if is_transposed and contribution.n_rows == shape[1]:
            return replace(contribution, shape=shape, transposed=not contribution.transposed)
    return PartsContribution([part], [contribution], shape)


def _whole(size: tuple[int, ...]) -> Part:
    """All of a parameter, in another shape."""
    stride = torch.empty(size, device="meta").stride()
    return Part(size, stride, 0)


@dataclass
class PartsContribution(Contribution):
    """Gradients of parts of a parameter, and zero everywhere else.

    ``received[k]`` is what ``parts[k]`` receives; a part may come more than once.
    """

    parts: list[Part]
    received: list[Contribution]
    shape: torch.Size

    def __post_init__(self) -> None:
        self.n = self.received[0].n

    def dense(self, rows: slice) -> Tensor:
        gradients = self.received[0].dense(rows)
        total = gradients.new_zeros(len(gradients), self.shape.numel())
        self.parts[0].of(total).add_(gradients)
        for part, contribution in zip(self.parts[1:], self.received[1:], strict=True):
            part.of(total).add_(contribution.dense(rows))
        return total.reshape(len(total), *self.shape)

    def squared_norm(self) -> Tensor:
        if not _are_disjoint(self.parts, self.shape.numel()):
            return super().squared_norm()
        norms = [contribution.squared_norm() for contribution in self.received]
        return norms[0] if len(norms) == 1 else torch.stack(norms).sum(0)

    def cost(self) -> float:
        own = sum(contribution.cost() for contribution in self.received)
        return own + WRITTEN * self.shape.numel()

    def form(self) -> Hashable:
        return PartsContribution, self.shape

    @classmethod
    def joined(cls, parts: Sequence[PartsContribution]) -> PartsContribution:
        by_part: dict[Part, list[Contribution]] = {}
        for several in parts:
            for part, received in zip(several.parts, several.received, strict=True):
                by_part.setdefault(part, []).append(received)
        pairs = [(part, own) for part, uses in by_part.items() for own in joined(uses)]
        return cls([part for part, _ in pairs], [own for _, own in pairs], parts[0].shape)


def _are_disjoint(parts: list[Part], n_numbers: int) -> bool:
    """Whether no element is in two parts."""
    ordered = sorted((part for part in parts if 0 not in part.size), key=lambda part: part.offset)
    if all(one.end <= following.offset for one, following in pairwise(ordered)):
        return True
    marks = torch.zeros(1, n_numbers, dtype=torch.int8)
    for part in ordered:
        part.of(marks).add_(1).clamp_(max=2)
    return int(marks.max()) < 2

"""What every batch leaves behind, in one block of memory."""

from __future__ import annotations

import torch
from torch import Tensor


class GrowingTensor:
    """Tensors appended along one dimension of a block that doubles when it is full.

    A small tensor kept from every batch would lie between the large ones that come and go, which
    the allocator could then neither join nor give back: memory grows with the batches, to many
    times what is kept.

    Parameters
    ----------
    dim : int, default=0
        Along which tensors are appended; all others are those of the first one.
    """

    def __init__(self, dim: int = 0) -> None:
        self.dim = dim
        self._n = 0
        self._block: Tensor | None = None

    @torch.no_grad()
    def append(self, part: Tensor) -> None:
        """Copy a tensor to the end."""
        n = part.shape[self.dim]
        block = self._with_room_for(part, self._n + n)
        block.narrow(self.dim, self._n, n).copy_(part)
        self._block, self._n = block, self._n + n

    def whole(self) -> Tensor:
        """A copy of all that was appended.

        Raises
        ------
        ValueError
            If there is nothing.
        """
        if self._block is None:
            raise ValueError("nothing was appended: no batch is complete yet")
        return self._block.narrow(self.dim, 0, self._n).clone()

    def _with_room_for(self, part: Tensor, n: int) -> Tensor:
        block = self._block
        if block is not None and n <= block.shape[self.dim]:
            return block
        shape = list(part.shape)
        shape[self.dim] = max(n, 2 * self._n)
        grown = part.new_empty(shape)
        if block is not None:
            grown.narrow(self.dim, 0, self._n).copy_(block.narrow(self.dim, 0, self._n))
        return grown

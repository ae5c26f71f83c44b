"""Random numbers that a row receives whatever its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skgradood.gradients.capture.functions import RANDOM


class RowNoise:
    """Replaces a draw for a whole batch by one draw a row, from the row's own generator.

    The result equals what each row would draw in a batch of its own, as long as the first
    dimension of what is drawn runs over the rows, or over the samples of one row after another.

    Parameters
    ----------
    X : Tensor of shape (n, ...)
        The batch.
    seeds_of : callable
        From the batch to a seed for every row; called when the first number is drawn.
    """

    def __init__(self, X: Tensor, seeds_of: Callable[[Tensor], list[int]]) -> None:
        self.X = X
        self.seeds_of = seeds_of
        self.generator = torch.Generator(device=X.device).manual_seed(0)
        self._rows: dict[bool, list[torch.Generator]] = {}

    def draw(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
        """What the rows draw, or None if the draw is not the same number for each row."""
        shape, options = _shape_of_draw(args, kwargs)
        if shape is None or len(shape) == 0 or shape[0] % len(self.X):
            return None
        generator = options.pop("generator", None)
        if generator not in (None, self.generator):
            return None
        plain = RANDOM[function]
        rows = self._rows_for(explicit=generator is not None)
        share = (shape[0] // len(self.X), *shape[1:])
        return torch.cat([plain(share, generator=row, **options) for row in rows])

    def _rows_for(self, *, explicit: bool) -> list[torch.Generator]:
        # The generator passed on and torch's global one are two streams of the same seed.
        if explicit not in self._rows:
            device = self.generator.device
            self._rows[explicit] = [
                torch.Generator(device=device).manual_seed(seed) for seed in self.seeds_of(self.X)
            ]
        return self._rows[explicit]


def _shape_of_draw(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple | None, dict[str, Any]]:
    options = dict(kwargs)
    if args and isinstance(args[0], Tensor):
        like = args[0]
        options.setdefault("dtype", like.dtype)
        options.setdefault("device", like.device)
        options.pop("memory_format", None)
        return tuple(like.shape), options
    size = options.pop("size", args)
    if len(size) == 1 and not isinstance(size[0], int):
        size = size[0]
    return tuple(size), options

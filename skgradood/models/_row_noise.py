"""Functions of a batch that draw noise, evaluated so that each row has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skgradood.gradients.capture.functions import DRAWS
from skgradood.gradients.capture.noise import RowNoise
from skgradood.gradients.state import global_rng_states, isolated_rng


def with_row_noise(
    function: Callable[[nn.Module, Tensor, torch.Generator], Tensor],
    module: nn.Module,
    X: Tensor,
    row_seeds: Callable[[Tensor], list[int]],
) -> Tensor:
    """Evaluate a function of a batch with noise that belongs to each row, whatever its neighbours.

    Parameters
    ----------
    function : callable
        ``(module, X, generator) -> (n, ...)``.
    module : nn.Module
        Handed on to the function.
    X : Tensor of shape (n, ...)
        The batch.
    row_seeds : callable
        From the batch to a seed for every row.

    Returns
    -------
    Tensor of shape (n, ...)
    """
    noise = RowNoise(X, row_seeds)
    before = [noise.generator.get_state(), *global_rng_states()]
    with _RowNoiseMode(noise):
        values = function(module, X, noise.generator)
    after = [noise.generator.get_state(), *global_rng_states()]
    if all(map(torch.equal, before, after)):
        return values
    # Numbers were drawn that cannot be given to rows one by one: each row has a pass of its own.
    alone = []
    for i, seed in enumerate(row_seeds(X)):
        generator = torch.Generator(device=X.device).manual_seed(seed)
        with isolated_rng(seed):
            alone.append(function(module, X[i : i + 1], generator))
    return torch.cat(alone)


class _RowNoiseMode(TorchFunctionMode):
    """Replaces what is drawn for a batch by what each row draws."""

    def __init__(self, noise: RowNoise) -> None:
        super().__init__()
        self.noise = noise

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        drawn = self.noise.draw(function, args, kwargs) if function in DRAWS else None
        return function(*args, **kwargs) if drawn is None else drawn[0]

"""Asks a function itself where the samples lie in its results, and whether it mixes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from skgradood.gradients.capture.axes import BatchAxis

REFUSALS = (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError, AssertionError)

_Call = tuple[tuple, dict[str, Any]]


def axes_by_probing(
    function: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    axes: dict[int, BatchAxis],
    outputs: list[Tensor],
) -> list[BatchAxis | None]:
    """The axis of every output, None where there is none.

    The function is called with some of the samples in the place of others. Where results are
    those of the samples that were put there, each sample's result depends on that sample alone.
    """
    divisions = {axis.at(0) for axis in axes.values()}
    if len(divisions) != 1:
        return [None] * len(outputs)
    (division,) = divisions
    likely = {axis.dim for axis in axes.values()}
    for values in (_made_up, _given):
        found = _probe(function, values(args, kwargs, axes), axes, outputs, division, likely)
        if found is not None:
            return found
    return [None] * len(outputs)


def _probe(
    function: Callable,
    call: tuple[_Call, dict[int, BatchAxis]],
    axes: dict[int, BatchAxis],
    outputs: list[Tensor],
    division: BatchAxis,
    likely: set[int],
) -> list[BatchAxis | None] | None:
    """The axes, or None if the function cannot be called on these values, or says nothing."""
    (args, kwargs), axes = call
    try:
        results = _results(function, args, kwargs, axes, None)
        if [r.shape for r in results] != [o.shape for o in outputs]:
            return None
        if not any(r.isfinite().any() for r in results if r.numel()):
            return None
        trials = [
            (samples, _results(function, args, kwargs, axes, samples))
            for samples in _choices(division.n, results[0].device)
        ]
    except REFUSALS:
        return None
    found = []
    for k, result in enumerate(results):
        changed = [(samples, trial[k]) for samples, trial in trials if k < len(trial)]
        found.append(
            next(
                (
                    axis
                    for axis in _candidates(result, division, likely)
                    if len(changed) == len(trials)
                    and all(_same(new, axis.chosen(result, rows)) for rows, new in changed)
                ),
                None,
            )
        )
    return found


def _results(
    function: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    axes: dict[int, BatchAxis],
    samples: Tensor | None,
) -> list[Tensor]:
    """What the function returns with ``samples`` in the place of all, on copies."""

    def copy(tensor: Tensor) -> Tensor:
        axis = axes.get(id(tensor))
        return tensor.clone() if axis is None or samples is None else axis.chosen(tensor, samples)

    copied_args, copied_kwargs = tree_map_only(Tensor, copy, (args, kwargs))
    with torch.no_grad():
        result = function(*copied_args, **copied_kwargs)
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _choices(n: int, device: torch.device) -> list[Tensor]:
    """Samples to put in the place of all.

    A function that adds, sorts or normalises over samples changes when the first one is left
    out and the others move up; one that looks for an extreme at the latest when it is alone; one
    that sorts what happens to be in order when it is turned round.
    """
    if n < 2:
        return []
    moved_up = torch.arange(1, n + 1, device=device).clamp_max(n - 1)
    return [moved_up, torch.zeros_like(moved_up), torch.arange(n - 1, -1, -1, device=device)]


def _candidates(result: Tensor, division: BatchAxis, likely: set[int]) -> Iterator[BatchAxis]:
    dims = sorted(range(result.ndim), key=lambda dim: (dim not in likely, dim))
    return (division.at(dim) for dim in dims if result.shape[dim] == division.size)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    scale = float(b[b.isfinite()].abs().max()) if b.isfinite().any() else 0.0
    tolerance = max(1e-4, 4 * torch.finfo(a.dtype).eps)
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _given(
    args: tuple, kwargs: dict[str, Any], axes: dict[int, BatchAxis]
) -> tuple[_Call, dict[int, BatchAxis]]:
    detached: dict[int, BatchAxis] = {}
    return _replaced(args, kwargs, axes, detached, lambda tensor: tensor.detach()), detached


def _made_up(
    args: tuple, kwargs: dict[str, Any], axes: dict[int, BatchAxis]
) -> tuple[_Call, dict[int, BatchAxis]]:
    """Data replaced by random numbers: those given may happen to be equal for all samples."""
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: Tensor) -> Tensor:
        if id(tensor) not in axes:
            return _constant(tensor)
        if tensor.is_floating_point() or tensor.is_complex():
            kind = torch.complex128 if tensor.is_complex() else torch.float64
            drawn = 0.1 + 0.8 * torch.rand(tensor.shape, generator=generator, dtype=kind)
        else:
            drawn = torch.randint(0, 2, tensor.shape, generator=generator)
        return drawn.to(tensor.dtype).to(_constant(tensor).device)

    fresh: dict[int, BatchAxis] = {}
    return _replaced(args, kwargs, axes, fresh, draw), fresh


def _constant(tensor: Tensor) -> Tensor:
    """What probing sees of a tensor that belongs to no sample."""
    return tensor.detach()


def _replaced(
    args: tuple,
    kwargs: dict[str, Any],
    axes: dict[int, BatchAxis],
    new_axes: dict[int, BatchAxis],
    value_of: Callable[[Tensor], Tensor],
) -> _Call:
    """The call with other values; ``new_axes`` is filled with the axes of those."""
    values: dict[int, Tensor] = {}

    def replace(tensor: Tensor) -> Tensor:
        if id(tensor) not in values:
            values[id(tensor)] = value_of(tensor)
            if id(tensor) in axes:
                new_axes[id(values[id(tensor)])] = axes[id(tensor)]
        return values[id(tensor)]

    return tree_map_only(Tensor, replace, (args, kwargs))

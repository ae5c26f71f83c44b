"""Functions of parameters that stay as they are, in forms that a CPU is quick at."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from skgradood.models._calls import input_first, pair

# Torch hands on every argument of a function, given or not.
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(F.cross_entropy).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


class FixedWeights(TorchFunctionMode):
    """Runs transposed convolutions and cross-entropies in layouts that a CPU is quick at.

    Results are those of torch to rounding; gradients reach data but no parameter. One such object
    is to serve many passes: it remembers kernels in the form that they are needed in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kernels: dict[tuple, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.conv_transpose2d:
            args, kwargs = input_first(args, kwargs)
            return self._convolve_transposed(*args, **kwargs)
        if function is F.cross_entropy:
            return _cross_entropy(*args, **kwargs)
        return function(*args, **kwargs)

    def _convolve_transposed(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor:
        steps, pads, extra, spreads = map(pair, (stride, padding, output_padding, dilation))
        is_fixed = isinstance(weight, nn.Parameter) and (
            bias is None or isinstance(bias, nn.Parameter)
        )
        if not is_fixed or x.ndim != 4 or groups != 1 or spreads != (1, 1):
            return torch.conv_transpose2d(
                x, weight, bias, stride, padding, output_padding, groups, dilation
            )
        if (weight, steps, pads) not in self._kernels:
            channels_last = weight.detach().contiguous(memory_format=torch.channels_last)
            by_phase = _kernels_of_phases(weight.detach(), steps, pads)
            self._kernels[weight, steps, pads] = by_phase, channels_last
        size = tuple(
            (length - 1) * step - 2 * pad + width + more
            for length, step, pad, width, more in zip(
                x.shape[2:], steps, pads, weight.shape[2:], extra, strict=True
            )
        )
        bias = None if bias is None else bias.detach()
        kernels = self._kernels[weight, steps, pads]
        return _TransposedConvolution.apply(x, *kernels, bias, steps, pads, size)


class _TransposedConvolution(torch.autograd.Function):
    """As products of matrices, one for every phase of the results' positions."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernels: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        steps: tuple[int, int],
        pads: tuple[int, int],
        size: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.steps, ctx.pads = steps, pads
        n, n_out = len(x), weight.shape[1]
        taps = [-(-width // step) for width, step in zip(weight.shape[2:], steps, strict=True)]
        places = [-(-length // step) for length, step in zip(size, steps, strict=True)]
        columns = _columns_of_phases(x, steps, pads, taps, places)
        product = torch.bmm(columns.flatten(5).flatten(2, 4).flatten(0, 1), kernels)
        phases = product.view(*steps, n, *places, n_out).permute(2, 3, 0, 4, 1, 5)
        # Channels come last, where what follows a convolution is quickest.
        result = x.new_empty(phases.shape)
        if bias is None:
            result.copy_(phases)
        else:
            torch.add(phases, bias, out=result)
        rows = result.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]]
        return rows.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (weight,) = ctx.saved_tensors
        of_x = torch.conv2d(gradient, weight, stride=ctx.steps, padding=ctx.pads)
        return of_x, *[None] * 6


def _columns_of_phases(
    x: Tensor,
    steps: tuple[int, int],
    pads: tuple[int, int],
    taps: list[int],
    places: list[int],
) -> Tensor:
    """What the taps of every phase meet, (*steps, n, *places, *taps, channels)."""
    starts = [
        [(phase + pad) // step - n_taps + 1 for phase in range(step)]
        for step, pad, n_taps in zip(steps, pads, taps, strict=True)
    ]
    margins = []
    for line, length, n_places, n_taps in zip(starts, x.shape[2:], places, taps, strict=True):
        margins.append((max(0, -line[0]), max(0, line[-1] + n_places + n_taps - 1 - length)))
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, *margins[1], *margins[0]))
    columns = x.new_empty(*steps, len(x), *places, *taps, x.shape[1])
    extents = [n_places + n_taps - 1 for n_places, n_taps in zip(places, taps, strict=True)]
    for i, j in itertools.product(*map(range, steps)):
        met = rows.narrow(1, starts[0][i] + margins[0][0], extents[0])
        met = met.narrow(2, starts[1][j] + margins[1][0], extents[1])
        columns[i, j] = met.unfold(1, taps[0], 1).unfold(2, taps[1], 1).permute(0, 1, 2, 4, 5, 3)
    return columns


def _kernels_of_phases(weight: Tensor, steps: tuple[int, int], pads: tuple[int, int]) -> Tensor:
    """The taps that results at every phase meet, (phases, taps and input channels, channels)."""
    taps = [-(-width // step) for width, step in zip(weight.shape[2:], steps, strict=True)]
    missing = [
        n * step - width for n, step, width in zip(taps, steps, weight.shape[2:], strict=True)
    ]
    whole = F.pad(weight, (0, missing[1], 0, missing[0]))
    whole = whole.unflatten(3, (taps[1], steps[1])).unflatten(2, (taps[0], steps[0])).flip(2, 4)
    # A result at y has the phase y modulo the step; the tap it meets first, y + pad modulo it.
    whole = whole.roll((-pads[0], -pads[1]), dims=(3, 5))
    return whole.permute(3, 5, 2, 4, 0, 1).flatten(2, 4).flatten(0, 1).contiguous()


class _CrossEntropy(torch.autograd.Function):
    """Of classes that lie beside one another in memory; one exponential for value and gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        rows = logits.movedim(1, -1).reshape(-1, logits.shape[1])
        chosen = target.reshape(-1, 1)
        largest = rows.amax(dim=1, keepdim=True)
        weights = (rows - largest).exp_()
        total = weights.sum(dim=1, keepdim=True)
        ctx.save_for_backward(weights, total, chosen)
        return (total.log() - (rows.gather(1, chosen) - largest)).view(target.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weights, total, chosen = ctx.saved_tensors
        of_rows = gradient.reshape(-1, 1)
        # In place: the largest tensor of a step is not made twice.
        weights.mul_(of_rows / total).scatter_add_(1, chosen, -of_rows)
        return weights.view(*gradient.shape, -1).movedim(-1, 1), None


def _cross_entropy(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    is_plain = {**_DEFAULTS, **options} == {**_DEFAULTS, "reduction": "none"}
    is_classes_last = logits.ndim == target.ndim + 1 > 2 and not logits.is_contiguous()
    # Negative ones may be those to ignore.
    if not is_plain or not is_classes_last or bool((target < 0).any()):
        return F.cross_entropy(logits, target, **options)
    return _CrossEntropy.apply(logits, target)

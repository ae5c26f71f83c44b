"""The cut at norms whose scale and shift are one number a channel.

As a norm without parameters, a product and a sum they would take four more passes over the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.cuts import Operand
from skgradood.gradients.capture.recorder import Use
from skgradood.gradients.contributions import DenseContribution

# Whether the gradients of the input, of the scale and of the shift are wanted.
Wanted = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

# The groups of all rows count as those of one, of which CUDA takes so many.
_MOST_GROUPS = 65535


class Saved(NamedTuple):
    """What a forward pass leaves to the backward pass: input, mean and inverse deviation."""

    x: Tensor
    mean: Tensor
    rstd: Tensor


class Normalisation(Protocol):
    """What tells one norm from another, on x of shape (N, C, ...)."""

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output, and mean and inverse deviation as `Saved` holds them."""

    def backward(self, gradient: Tensor, saved: Saved, weight: Tensor, wanted: Wanted) -> Gradients:
        """Gradients of x, and of scale and shift row by row, (N, C): at least those wanted.

        torch adds the latter up over the rows of a batch. All rows as one, with N x C channels,
        leave it nothing to add, and take one pass over the data as they do in training.
        """


@dataclass(frozen=True)
class GroupNormalisation:
    """Statistics of each row and group of channels."""

    groups: int
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, channels = x.shape[:2]
        positions = x.shape[2:].numel()
        return torch.native_group_norm(
            x, weight, bias, n, channels, positions, self.groups, self.eps
        )

    def backward(self, gradient: Tensor, saved: Saved, weight: Tensor, wanted: Wanted) -> Gradients:
        rows = max(1, _MOST_GROUPS // self.groups)
        pieces = zip(*(tensor.split(rows) for tensor in (gradient, *saved)), strict=True)
        parts = [self._backward(first, Saved(*kept), weight, wanted) for first, *kept in pieces]
        of_x, of_scale, of_shift = (_joined(tensors) for tensors in zip(*parts, strict=True))
        return of_x, of_scale, of_shift

    def _backward(
        self, gradient: Tensor, saved: Saved, weight: Tensor, wanted: Wanted
    ) -> Gradients:
        x, mean, rstd = saved
        n, channels = x.shape[:2]
        results = torch.ops.aten.native_group_norm_backward(
            _as_one_row(gradient), _as_one_row(x), mean.reshape(1, -1), rstd.reshape(1, -1),
            weight.repeat(n), 1, n * channels, x.shape[2:].numel(), n * self.groups, wanted,
        )  # fmt: skip
        return _by_row(results, x)


@dataclass(frozen=True)
class RunningNormalisation:
    """Batch norm in evaluation: statistics that are known, one of each a channel."""

    mean: Tensor
    variance: Tensor
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        output = torch.batch_norm(
            x, weight, bias, self.mean, self.variance, False, 0.0, self.eps, False
        )
        return output, self.mean, (self.variance + self.eps).rsqrt()

    def backward(self, gradient: Tensor, saved: Saved, weight: Tensor, wanted: Wanted) -> Gradients:
        x, mean, rstd = saved
        if x.ndim == 2:  # a channel has one number a row: nothing is summed
            return gradient * rstd * weight, gradient * (x - mean) * rstd, gradient
        n = len(x)
        means, deviations = mean.repeat(n), rstd.repeat(n)
        results = torch.ops.aten.native_batch_norm_backward(
            _as_one_row(gradient), _as_one_row(x), weight.repeat(n), means,
            self.variance.repeat(n), means, deviations, False, self.eps, wanted,
        )  # fmt: skip
        return _by_row(results, x)


def _as_one_row(x: Tensor) -> Tensor:
    """(N, C, ...) as (1, N x C, ...)."""
    return x.reshape(1, -1, *x.shape[2:])


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    if not tensors:
        return None
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _by_row(results: tuple[Tensor | None, ...], x: Tensor) -> Gradients:
    of_x, of_scale, of_shift = results
    rows = x.shape[:2]
    return (
        None if of_x is None else of_x.reshape(x.shape),
        None if of_scale is None else of_scale.reshape(rows),
        None if of_shift is None else of_shift.reshape(rows),
    )


class ChannelNormCut(torch.autograd.Function):
    """A norm with a scale, and perhaps a shift, which deliver their gradients sample by sample."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        x: Tensor,
        weight: Operand,
        bias: Operand | None,
        axis: BatchAxis,
        norm: Normalisation,
    ) -> Tensor:
        x = x.contiguous()
        ctx.weight, ctx.bias, ctx.axis, ctx.norm = weight, bias, axis, norm
        output, mean, rstd = norm.forward(x, weight.value, None if bias is None else bias.value)
        ctx.save_for_backward(x, mean, rstd)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        saved = Saved(*ctx.saved_tensors)
        uses = ctx.weight.use, None if ctx.bias is None else ctx.bias.use
        wanted = (ctx.needs_input_grad[1], *(use is not None for use in uses))
        of_x, *sums = ctx.norm.backward(gradient.contiguous(), saved, ctx.weight.value, wanted)
        for use, rows in zip(uses, sums, strict=True):
            if use is not None:
                _deliver(use, rows, ctx.axis)
        return None, of_x, None, None, None, None


def _deliver(use: Use, sums: Tensor, axis: BatchAxis) -> None:
    """Rows of (N, C) belong to the samples of an axis along dimension 0."""
    per_sample = axis.sum_by_sample(sums, use.recorder.n)
    use.deliver(DenseContribution(per_sample.reshape(len(per_sample), *use.tensor.shape)))

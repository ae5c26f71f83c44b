"""The cut at norms whose scale and shift are one number a channel.

As a norm without parameters, a product and a sum they would take four more passes over the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.cuts import Operand
from skgradood.gradients.contributions import DenseContribution

# Whether the gradients of the input, of the scale and of the shift are wanted.
Wanted = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Normalisation(Protocol):
    """What tells one norm from another, on x of shape (N, C, ...)."""

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output, and mean and inverse deviation as `backward` takes them."""

    def backward(
        self,
        gradient: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        wanted: Wanted,
    ) -> Gradients:
        """Gradients of x, and of scale and shift row by row, (N, C): those that are wanted.

        torch adds the latter up over the rows of a batch. All rows as one, with N x C channels,
        leave it nothing to add, and take one pass over the data as they do in training.
        """


@dataclass(frozen=True)
class GroupNormalisation:
    """Statistics of each row and group of channels."""

    groups: int
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, channels = x.shape[:2]
        positions = x[0, 0].numel()
        return torch.native_group_norm(
            x, weight, bias, n, channels, positions, self.groups, self.eps
        )

    def backward(
        self,
        gradient: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        wanted: Wanted,
    ) -> Gradients:
        n, channels = x.shape[:2]
        results = torch.ops.aten.native_group_norm_backward(
            _as_one_row(gradient), _as_one_row(x), mean.reshape(1, -1), rstd.reshape(1, -1),
            _repeated(weight, n), 1, n * channels, x[0, 0].numel(), n * self.groups, wanted,
        )  # fmt: skip
        return _by_row(results, x)


@dataclass(frozen=True)
class RunningNormalisation:
    """Batch norm in evaluation: statistics that are known, one of each a channel."""

    mean: Tensor
    variance: Tensor
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        output = torch.batch_norm(
            x, weight, bias, self.mean, self.variance, False, 0.0, self.eps, False
        )
        return output, self.mean, (self.variance + self.eps).rsqrt()

    def backward(
        self,
        gradient: Tensor,
        x: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        wanted: Wanted,
    ) -> Gradients:
        if x.ndim == 2:  # a channel has one number a row: nothing is summed
            scale = rstd if weight is None else rstd * weight
            return gradient * scale, gradient * (x - mean) * rstd, gradient
        n = len(x)
        results = torch.ops.aten.native_batch_norm_backward(
            _as_one_row(gradient), _as_one_row(x), _repeated(weight, n), mean.repeat(n),
            self.variance.repeat(n), None, None, False, self.eps, wanted,
        )  # fmt: skip
        return _by_row(results, x)


def _as_one_row(x: Tensor) -> Tensor:
    """(N, C, ...) as (1, N x C, ...)."""
    return x.reshape(1, -1, *x.shape[2:])


def _repeated(weight: Tensor | None, n: int) -> Tensor | None:
    return None if weight is None else weight.repeat(n)


def _by_row(results: tuple[Tensor | None, ...], x: Tensor) -> Gradients:
    of_x, of_scale, of_shift = results
    rows = x.shape[:2]
    return (
        None if of_x is None else of_x.reshape(x.shape),
        None if of_scale is None else of_scale.reshape(rows),
        None if of_shift is None else of_shift.reshape(rows),
    )


class ChannelNormCut(torch.autograd.Function):
    """A norm with scale and shift, which deliver their gradients sample by sample."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        x: Tensor,
        weight: Operand | None,
        bias: Operand | None,
        axis: BatchAxis,
        norm: Normalisation,
    ) -> Tensor:
        x = x.contiguous()
        ctx.weight, ctx.bias, ctx.axis, ctx.norm = weight, bias, axis, norm
        output, mean, rstd = norm.forward(
            x, None if weight is None else weight.value, None if bias is None else bias.value
        )
        ctx.save_for_backward(x, mean, rstd)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        x, mean, rstd = ctx.saved_tensors
        operands = ctx.weight, ctx.bias
        asked = (operand is not None and operand.use is not None for operand in operands)
        of_x, *sums = ctx.norm.backward(
            gradient.contiguous(),
            x,
            mean,
            rstd,
            None if ctx.weight is None else ctx.weight.value,
            (ctx.needs_input_grad[1], *asked),
        )
        for operand, rows in zip(operands, sums, strict=True):
            _deliver(operand, rows, ctx.axis)
        return None, of_x, None, None, None, None


def _deliver(operand: Operand | None, sums: Tensor | None, axis: BatchAxis) -> None:
    """Rows of (N, C) belong to the samples of an axis along dimension 0."""
    if operand is not None and operand.use is not None and sums is not None:
        per_sample = axis.samples_first(sums).sum((1, 2))
        shape = operand.use.tensor.shape
        operand.use.deliver(DenseContribution(per_sample.reshape(len(per_sample), *shape)))

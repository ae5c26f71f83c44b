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


class Normalisation(Protocol):
    """What tells one norm from another, on x of shape (N, C, ...)."""

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output, and mean and inverse deviation as the backward pass takes them."""

    def input_gradient(
        self, gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Gradient with respect to x."""

    def by_channel(self, statistic: Tensor, n_channels: int) -> Tensor:
        """Mean or inverse deviation, broadcastable to (N, C)."""


@dataclass(frozen=True)
class GroupNormalisation:
    """Statistics of each row and group of channels."""

    groups: int
    eps: float

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        sizes = self._sizes(x)
        return torch.native_group_norm(x, weight, bias, *sizes, self.groups, self.eps)

    def input_gradient(
        self, gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None
    ) -> Tensor:
        return torch.ops.aten.native_group_norm_backward(
            gradient, x, mean, rstd, weight, *self._sizes(x), self.groups, (True, False, False)
        )[0]

    def by_channel(self, statistic: Tensor, n_channels: int) -> Tensor:
        return statistic.repeat_interleave(n_channels // self.groups, dim=1)

    @staticmethod
    def _sizes(x: Tensor) -> tuple[int, int, int]:
        n, channels = x.shape[:2]
        return n, channels, x[0, 0].numel()


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

    def input_gradient(
        self, gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None
    ) -> Tensor:
        factor = rstd if weight is None else rstd * weight
        return gradient * factor.reshape(-1, *(1,) * (x.ndim - 2))

    def by_channel(self, statistic: Tensor, n_channels: int) -> Tensor:
        return statistic


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
        gradient = gradient.contiguous()
        rows = gradient.reshape(*gradient.shape[:2], -1)
        sums = rows.sum(2)
        if ctx.bias is not None and ctx.bias.use is not None:
            _deliver(ctx.bias, sums, ctx.axis)
        if ctx.weight is not None and ctx.weight.use is not None:
            products = torch.linalg.vecdot(rows, x.reshape(rows.shape))
            mean_c, rstd_c = (ctx.norm.by_channel(s, x.shape[1]) for s in (mean, rstd))
            _deliver(ctx.weight, (products - mean_c * sums) * rstd_c, ctx.axis)
        value = None if ctx.weight is None else ctx.weight.value
        grad_x = ctx.norm.input_gradient(gradient, x, mean, rstd, value)
        return None, grad_x, None, None, None, None


def _deliver(operand: Operand, sums: Tensor, axis: BatchAxis) -> None:
    """Rows of (N, C) belong to the samples of an axis along dimension 0."""
    if operand.use is not None:
        per_sample = axis.samples_first(sums).sum((1, 2))
        shape = operand.use.tensor.shape
        operand.use.deliver(DenseContribution(per_sample.reshape(len(per_sample), *shape)))

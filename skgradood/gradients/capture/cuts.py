"""Autograd functions that cut the graph between a parameter and the data it meets.

The backward of each returns the gradient of the data alone, and delivers the parameter's part,
sample by sample, to a :class:`~skgradood.gradients.capture.recorder.Use`. The aggregated
gradient of a parameter is never computed. Parameters come in detached; a scalar anchor that
requires grad makes autograd visit a cut even where no data before it requires grad.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from skgradood.gradients.capture.axes import BatchAxis
from skgradood.gradients.capture.recorder import Use
from skgradood.gradients.contributions import (
    AlignedContribution,
    DenseContribution,
    EmbeddingContribution,
    OuterContribution,
)
from skgradood.gradients.convolution import ConvolutionContribution, ConvolutionGeometry
from skgradood.gradients.precision import cast_operands, factor_of, is_half


class Operand(NamedTuple):
    """A parameter-side tensor at a meeting point: its detached value, and whom to tell.

    ``use`` is None for a tensor that needs no gradient, such as a frozen parameter.
    """

    value: Tensor
    use: Use | None = None


class CopyCut(torch.autograd.Function):
    """One copy of a parameter for every sample, as a view that broadcasts against the data.

    The operand's use may be that of a smaller tensor, which its value broadcasts.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, value: Tensor, operand: Operand, axis: BatchAxis
    ) -> Tensor:
        ctx.operand, ctx.axis = operand, axis
        # ``value`` is the operand's value laid out with one entry along the batch dimension.
        shape = [axis.size if d == axis.dim else -1 for d in range(value.ndim)]
        return value.expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        use = ctx.operand.use
        copies, shape = ctx.axis.sum_by_sample(gradient, use.recorder.n), use.tensor.shape
        n = copies.shape[0]
        if copies.numel() > n * shape.numel():  # the value broadcasts a smaller tensor
            layout = (1,) * (gradient.ndim - len(shape)) + tuple(shape)
            copies = copies.unsqueeze(ctx.axis.dim + 1).sum_to_size(n, *layout)
        use.deliver(DenseContribution(copies.reshape(n, *shape)))
        return None, None, None, None


class AlignedCut(torch.autograd.Function):
    """A tensor computed from parameters that already has a slice for every sample."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, value: Tensor, operand: Operand, axis: BatchAxis
    ) -> Tensor:
        ctx.operand, ctx.axis = operand, axis
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        axis, use = ctx.axis, ctx.operand.use
        shape = use.tensor.shape
        owners = axis.sample_of_slice(gradient.device)
        use.deliver(
            AlignedContribution(
                gradient.reshape(shape),
                axis.dim - (gradient.ndim - len(shape)),
                owners,
                use.recorder.n,
            )
        )
        return None, None, None, None


class LinearCut(torch.autograd.Function):
    """``x @ weight.T + bias`` over the last dimension of x."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        x: Tensor,
        weight: Operand,
        bias: Operand | None,
        axis: BatchAxis,
        transposed: bool,
    ) -> Tensor:
        ctx.weight, ctx.bias, ctx.axis, ctx.transposed = weight, bias, axis, transposed
        ctx.x_dtype = x.dtype
        x, value, shift = cast_operands(x, weight.value, bias.value if bias else None)
        ctx.save_for_backward(x if weight.use else None)
        return F.linear(_in_rows(x), value.mT if transposed else value, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        weight, bias, axis = ctx.weight, ctx.bias, ctx.axis
        (x,) = ctx.saved_tensors
        gradients = factor_of(axis.rows(gradient), weight.value)
        of_bias = None
        if bias and bias.use:
            sums = gradients.squeeze(1) if gradients.shape[1] == 1 else gradients.sum(1)
            if bias.use.tensor.ndim != 1:
                sums = sums.reshape(len(sums), *bias.use.tensor.shape)
            of_bias = DenseContribution(sums)
            bias.use.deliver(of_bias)
        if weight.use:
            rows = factor_of(axis.rows(x), weight.value)
            if rows.is_complex():  # autograd's gradient of a product has the conjugate
                rows = rows.conj().resolve_conj()
            shape = weight.use.tensor.shape
            weight.use.deliver(OuterContribution(rows, gradients, shape, ctx.transposed, of_bias))
        x_gradient = None
        if ctx.needs_input_grad[1]:
            matrix = weight.value.mT if ctx.transposed else weight.value
            product = _in_rows(gradient) @ matrix.to(gradient.dtype).conj()
            x_gradient = product.to(ctx.x_dtype)
        return None, x_gradient, None, None, None, None


def _in_rows(x: Tensor) -> Tensor:
    """What torch multiplies with a matrix as one matrix."""
    # Otherwise it copies the weight for every row, which takes long in half precision alone.
    return x.contiguous() if is_half(x) else x


class ConvolutionCut(torch.autograd.Function):
    """A convolution in any number of dimensions, transposed or not; batch first."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        x: Tensor,
        weight: Operand,
        bias: Operand | None,
        axis: BatchAxis,
        geometry: ConvolutionGeometry,
    ) -> Tensor:
        ctx.weight, ctx.bias, ctx.axis, ctx.geometry = weight, bias, axis, geometry
        ctx.x_dtype = x.dtype
        x, value, shift = cast_operands(x, weight.value, bias.value if bias else None)
        ctx.save_for_backward(x)
        return torch.convolution(
            x, value, shift, geometry.stride, geometry.padding, geometry.dilation,
            geometry.transposed, geometry.output_padding, geometry.groups,
        )  # fmt: skip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        weight, bias, axis, geometry = ctx.weight, ctx.bias, ctx.axis, ctx.geometry
        (x,) = ctx.saved_tensors
        x_gradient = None
        if ctx.needs_input_grad[1]:
            x_gradient, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight.value.to(gradient.dtype), None,
                geometry.stride, geometry.padding, geometry.dilation, geometry.transposed,
                geometry.output_padding, geometry.groups, (True, False, False),
            )  # fmt: skip
            x_gradient = x_gradient.to(ctx.x_dtype)
        inputs, outputs = (
            factor_of(axis.samples_first(t).flatten(1, 2), weight.value) for t in (x, gradient)
        )
        if bias and bias.use:
            sums = outputs.flatten(3).sum((1, 3)) if outputs.ndim > 3 else outputs.sum(1)
            bias.use.deliver(DenseContribution(sums))
        if weight.use:
            patched, pointwise = (outputs, inputs) if geometry.transposed else (inputs, outputs)
            weight.use.deliver(
                ConvolutionContribution(patched, pointwise, weight.use.tensor.shape, geometry)
            )
        return None, x_gradient, None, None, None, None


class EmbeddingCut(torch.autograd.Function):
    """Rows of a table picked by indices that depend on the data."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        indices: Tensor,
        table: Operand,
        axis: BatchAxis,
        padding_idx: int,
    ) -> Tensor:
        ctx.table, ctx.axis, ctx.padding_idx = table, axis, padding_idx
        ctx.save_for_backward(indices)
        return table.value[indices]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (indices,) = ctx.saved_tensors
        axis, use = ctx.axis, ctx.table.use
        width = use.tensor.shape[1:].numel()
        rows = axis.rows(gradient.reshape(*indices.shape, width))
        picked = axis.samples_first(indices).flatten(1)
        if ctx.padding_idx >= 0:
            rows = rows.masked_fill((picked == ctx.padding_idx)[..., None], 0)
        use.deliver(
            EmbeddingContribution(picked, rows, torch.Size((use.tensor.shape[0], width)))
            if use.tensor.ndim == 2
            else EmbeddingContribution(picked, rows, use.tensor.shape)
        )
        return None, None, None, None, None

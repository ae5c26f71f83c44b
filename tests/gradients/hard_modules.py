"""Modules that capture refuses, or should: what it cannot watch, and what couples the samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class CustomFunction(nn.Module):
    """A user's autograd function of data, or of a parameter (which cannot be watched)."""

    def __init__(self, d: int, *, of: str) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.scale = nn.Parameter(torch.zeros(d))
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        h = _Cube.apply(h) if self.of == "data" else h * _Cube.apply(self.scale)
        return self.layer(h) * self.scale


class _ScaledBy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(0)


class CustomLayer(nn.Module):
    """A parameter meets data inside a user's autograd function, as the last thing that happens."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.scale = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        return _ScaledBy.apply(self.layer(x), self.scale)


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-0.05, 0.05)


class ClippedGradient(nn.Module):
    """What a parameter gets is no linear function of what its value gets."""

    def __init__(self, d: int, *, by: str) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.scale = nn.Parameter(torch.zeros(d))
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.by == "function":
            return h * _Clipped.apply(self.scale)
        scale = self.scale.sin()
        if scale.requires_grad:
            scale.register_hook(lambda gradient: gradient.clamp(-0.05, 0.05))
        return h * scale


class HookedBroadcast(nn.Module):
    """A hook on what spreads one number over the rows."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer, self.shift = nn.Linear(d, d), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        shifts = torch.zeros(len(x), dtype=x.dtype, device=x.device) + self.shift
        if shifts.requires_grad:
            shifts.register_hook(lambda gradient: 2 * gradient)
        return (self.layer(x).mT * shifts).mT


class ComplexMap(nn.Module):
    """A linear map of complex numbers over positions, or of rows, from real parameters."""

    def __init__(self, d: int, *, by_product: bool) -> None:
        super().__init__()
        self.real, self.imaginary = nn.Parameter(torch.ones(3, d)), nn.Parameter(torch.ones(3, d))
        self.by_product = by_product

    def forward(self, x: Tensor) -> Tensor:
        x, weight = torch.complex(x, x.cos()), torch.complex(self.real, self.imaginary)
        y = x @ weight.mT if self.by_product else nn.functional.linear(x, weight)
        return torch.view_as_real(y).flatten(1)


class Checkpointed(nn.Module):
    """A part is computed again in the backward pass."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, d)
        self.second = nn.Sequential(nn.Linear(d, d, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.second, self.first(x), use_reentrant=False)


class MinusBatchMean(nn.Module):
    """Couples the rows of a batch by a mean over it."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h - 0.5 * h.mean(0, keepdim=True)


class BatchSoftmax(nn.Module):
    """Couples the rows of a batch while every shape stays as it is."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h * h.softmax(0)


class DividedByBatchSize(nn.Module):
    """Couples the rows of a batch by their number alone, which no function of torch tells."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) / len(x)


class _ScaledByPlainValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight.data

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(0)


class PlainValues(nn.Module):
    """A user's autograd function reads a parameter where nothing tells that it is one."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.scale = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return torch.where(x[:, :1] > 0, _ScaledByPlainValues.apply(h, self.scale), h)

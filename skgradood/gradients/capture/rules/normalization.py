"""Affine norms: cut as a whole, or normalised without parameters, then scaled and shifted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.capture.norm_cuts import (
    ChannelNormCut,
    GroupNormalisation,
    Normalisation,
    RunningNormalisation,
)
from skgradood.gradients.errors import StrategyRefused
from skgradood.gradients.precision import is_autocast_on, is_half


def batch_norm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.batch_norm``, with running statistics only: batch statistics couple samples."""
    x, weight, bias, mean, variance, training, *rest = args
    if training:
        raise StrategyRefused("batch_norm normalises with the statistics of the batch")
    if _is_plain(mode, x, weight, bias):
        return _cut(mode, x, weight, bias, RunningNormalisation(mean, variance, rest[1]))
    normal = function(x, None, None, mean, variance, training, *rest)
    return _affine(mode, normal, x, weight, bias, x.ndim, channel_dim=1)


def instance_norm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.instance_norm``."""
    x, weight, bias, *rest = args
    return _affine(mode, function(x, None, None, *rest), x, weight, bias, 2, channel_dim=1)


def group_norm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.group_norm``."""
    x, groups, weight, bias, *rest = args
    if _is_plain(mode, x, weight, bias):
        return _cut(mode, x, weight, bias, GroupNormalisation(groups, rest[0]))
    return _affine(mode, function(x, groups, None, None, *rest), x, weight, bias, 1, channel_dim=1)


def layer_norm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.layer_norm``."""
    x, shape, weight, bias, *rest = args
    normal = function(x, shape, None, None, *rest)
    return _affine(mode, normal, x, weight, bias, x.ndim - len(shape))


def rms_norm(mode: CaptureMode, function: Callable, args: tuple, kwargs: dict) -> Tensor:
    """``torch.rms_norm``."""
    x, shape, weight, *rest = args
    return _affine(mode, function(x, shape, None, *rest), x, weight, None, x.ndim - len(shape))


def _is_plain(mode: CaptureMode, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether rows of data meet a scale that kernels take with them, and perhaps such a shift."""
    if weight is None or not mode.is_data(x) or mode.axis_of(x).dim != 0 or x.numel() == 0:
        return False
    given = [weight] if bias is None else [weight, bias]
    if any(mode.is_data(p) for p in given):
        return False
    # Neither do other devices' kernels mix them, nor does a CPU's autocast convert them.
    if x.is_cpu and is_half(x) and all(p.dtype == torch.float32 for p in given):
        return True
    same = all(p.dtype == x.dtype for p in given)
    return same and (x.is_cpu or not is_autocast_on(x.device.type))


def _cut(
    mode: CaptureMode,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Normalisation,
) -> Tensor:
    axis = mode.axis_of(x)
    shift = None if bias is None else mode.operand(bias)
    result = ChannelNormCut.apply(mode.anchor, x, mode.operand(weight), shift, axis, norm)
    mode.mark(result, axis)
    return result


def _affine(
    mode: CaptureMode,
    normal: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    first_normalised: int,
    channel_dim: int | None = None,
) -> Tensor:
    """Scale and shift what a norm over dimensions from ``first_normalised`` on has made of x."""
    if not mode.is_data(x):
        raise StrategyRefused("a norm of a parameter with a scale made from data")
    axis = mode.axis_of(x)
    if axis.dim >= first_normalised:
        raise StrategyRefused("a norm over the dimension in which the samples lie")
    mode.mark(normal, axis)
    dtype = normal.dtype  # a norm's own: half of a parameter's precision stays what it is
    with mode:
        for combine, parameter in ((torch.mul, weight), (torch.add, bias)):
            if parameter is not None:
                normal = combine(normal, _laid_out(mode, parameter, normal, channel_dim))
        return normal if normal.dtype == dtype else normal.to(dtype)


def _laid_out(
    mode: CaptureMode, parameter: Tensor, like: Tensor, channel_dim: int | None
) -> Tensor:
    if channel_dim is None:
        layout = (1,) * (like.ndim - parameter.ndim) + tuple(parameter.shape)
    else:
        layout = tuple(-1 if d == channel_dim else 1 for d in range(like.ndim))
        layout = tuple(parameter.numel() if size == -1 else size for size in layout)
    if not mode.is_parameter(parameter):
        return parameter.reshape(layout)
    return mode.copies(parameter, layout, mode.axis_of(like))


RULES = {
    torch.batch_norm: batch_norm,
    torch.instance_norm: instance_norm,
    torch.group_norm: group_norm,
    torch.layer_norm: layer_norm,
    torch.rms_norm: rms_norm,
}

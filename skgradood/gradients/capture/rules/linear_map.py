"""A linear map of data by a parameter, which the rules for several functions end in."""

from __future__ import annotations

from torch import Tensor

from skgradood.gradients.capture.cuts import LinearCut, Operand
from skgradood.gradients.capture.mode import CaptureMode
from skgradood.gradients.errors import StrategyRefused


def apply_linear(
    mode: CaptureMode,
    x: Tensor,
    weight: Operand,
    bias: Operand | None = None,
    *,
    transposed: bool = False,
) -> Tensor:
    """``x @ weight.T + bias`` with data x, registered as data."""
    axis = mode.axis_of(x)
    if axis.dim == x.ndim - 1:
        raise StrategyRefused("a linear map over the dimension in which the samples lie")
    result = LinearCut.apply(mode.anchor, x, weight, bias, axis, transposed)
    mode.mark(result, axis)
    return result

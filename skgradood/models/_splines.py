"""Monotonic rational-quadratic splines on an interval, the identity outside of it.

Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows", NeurIPS 2019; equations by number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# As shares of the interval, and as a slope; below them a bin would have no inverse in float32.
SMALLEST_BIN = 1e-3
_SMALLEST_SLOPE = 1e-3
# At which softplus gives a slope of one.
_RAW_SLOPE_OF_ONE = math.log(math.expm1(1 - _SMALLEST_SLOPE))


class Spline(NamedTuple):
    """Splines of K bins: their knots, from one corner of a square to the opposite one.

    Parameters
    ----------
    x, y : Tensor of shape (..., K + 1)
        Coordinates of the knots, rising.
    slope : Tensor of shape (..., K + 1)
        Derivatives there, positive.
    """

    x: Tensor
    y: Tensor
    slope: Tensor


def n_spline_outputs(n_bins: int) -> int:
    """Unbounded numbers that determine a spline: widths, heights and inner slopes."""
    return 3 * n_bins - 1


def make_spline(raw: Tensor, bound: float) -> Spline:
    """Splines on (-bound, bound) from unbounded numbers; zeros give the identity.

    Parameters
    ----------
    raw : Tensor of shape (..., 3 K - 1)
        What a network says.
    bound : float
        Outside, the function is the identity; slopes at the ends are one, to join it smoothly.
    """
    n_bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = raw.split([n_bins, n_bins, n_bins - 1], dim=-1)
    inner = _SMALLEST_SLOPE + F.softplus(slopes + _RAW_SLOPE_OF_ONE)
    return Spline(_knots(widths, bound), _knots(heights, bound), F.pad(inner, (1, 1), value=1.0))


def _knots(raw: Tensor, bound: float) -> Tensor:
    n_bins = raw.shape[-1]
    shares = SMALLEST_BIN + (1 - n_bins * SMALLEST_BIN) * raw.softmax(dim=-1)
    inner = 2 * bound * shares[..., :-1].cumsum(dim=-1) - bound
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


class _Bins(NamedTuple):
    """The bin that every value lies in."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope: Tensor
    next_slope: Tensor


def _find_bins(spline: Spline, edges: Tensor, values: Tensor) -> _Bins:
    index = (values[..., None] >= edges[..., 1:-1]).sum(dim=-1, keepdim=True)

    def left_and_right(knots: Tensor) -> tuple[Tensor, Tensor]:
        left, right = knots[..., :-1].gather(-1, index), knots[..., 1:].gather(-1, index)
        return left.squeeze(-1), right.squeeze(-1)

    (x, next_x), (y, next_y) = left_and_right(spline.x), left_and_right(spline.y)
    return _Bins(x, y, next_x - x, next_y - y, *left_and_right(spline.slope))


def evaluate(spline: Spline, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The function and the log of its derivative (equations 4 and 5).

    Parameters
    ----------
    spline : Spline
        As many splines as values.
    x : Tensor of shape (...)
    bound : float
        As for `make_spline`.

    Returns
    -------
    y, log_slope : Tensor of shape (...)
        The latter in nats.
    """
    inside = x.abs() < bound
    # Clamped before the formula, so that what is not selected has a finite derivative, too.
    clamped = x.clamp(-bound, bound)
    bins = _find_bins(spline, spline.x, clamped)
    secant = bins.height / bins.width
    position = (clamped - bins.x) / bins.width
    both = position * (1 - position)
    below = secant + (bins.slope + bins.next_slope - 2 * secant) * both
    y = bins.y + bins.height * (secant * position**2 + bins.slope * both) / below
    above = bins.next_slope * position**2 + 2 * secant * both + bins.slope * (1 - position) ** 2
    log_slope = 2 * secant.log() + above.log() - 2 * below.log()
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def invert(spline: Spline, y: Tensor, bound: float) -> Tensor:
    """Undo `evaluate`: the root of a quadratic equation (6 to 8), (...) to (...)."""
    inside = y.abs() < bound
    clamped = y.clamp(-bound, bound)
    bins = _find_bins(spline, spline.y, clamped)
    secant = bins.height / bins.width
    rise = clamped - bins.y
    excess = bins.slope + bins.next_slope - 2 * secant
    a = bins.height * (secant - bins.slope) + rise * excess
    b = bins.height * bins.slope - rise * excess
    c = -secant * rise
    discriminant = (b**2 - 4 * a * c).clamp_min(0)
    # The form that does not cancel where a is near zero.
    position = 2 * c / (-b - discriminant.sqrt())
    return torch.where(inside, bins.x + position * bins.width, y)

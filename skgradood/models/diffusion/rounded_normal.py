"""A normal distribution rounded to the grid of pixel values."""

from __future__ import annotations

import torch
from torch import Tensor

from skgradood.models._pixels import N_VALUES, to_unit

# Pixel values lie in (-1, 1), at the midpoints of bins of this width.
BIN = 2 / N_VALUES


def to_signed_unit(X: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixel values 0...255 onto the midpoints of their bins in (-1, 1)."""
    return 2 * to_unit(X, dtype)


def log_mass(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log-probability of the bin of x; the outermost bins reach to infinity.

    Parameters
    ----------
    x : Tensor
        Midpoints of bins, as `to_signed_unit` returns them.
    mean, deviation : Tensor
        Of the normal distribution; broadcast against x.

    Returns
    -------
    Tensor
        Nats. They sum to one over the 256 values (Ho et al. 2020, equation 13).
    """
    lower = torch.where(x < BIN - 1, -torch.inf, (x - mean - BIN / 2) / deviation)
    upper = torch.where(x > 1 - BIN, torch.inf, (x - mean + BIN / 2) / deviation)
    # Both ends go to the lower tail, where the logarithm of the distribution function is precise.
    reflected = lower + upper > 0
    low = torch.where(reflected, -upper, lower)
    high = torch.where(reflected, -lower, upper)
    log_high = torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))

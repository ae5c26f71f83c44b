"""Coupling layers: half of the channels transform the other half."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Bend ``raw`` smoothly into (-bound, bound); near 0 it stays as it is."""
    return bound * torch.tanh(raw / bound)


class AffineCoupling(nn.Module):
    """Scale and shift the second half of the channels by functions of the first.

    The log-scale is bounded, so that neither direction can overflow.

    Parameters
    ----------
    conditioner : nn.Module
        Computes raw log-scales and shifts, (n, C, H, W), from the first half, (n, C / 2, H, W).
    scale_bound : float
        Largest absolute log-scale.
    """

    def __init__(self, conditioner: nn.Module, scale_bound: float) -> None:
        super().__init__()
        self.scale_bound = scale_bound
        self.conditioner = conditioner

    def _log_scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.conditioner(kept).chunk(2, dim=1)
        return bounded(raw, self.scale_bound), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``x``.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)

        Returns
        -------
        y : Tensor of shape (n, C, H, W)
        log_determinant : Tensor of shape (n,)
            In nats.
        """
        kept, changed = x.chunk(2, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        changed = changed * log_scale.exp() + shift
        return torch.cat([kept, changed], dim=1), log_scale.sum(dim=(1, 2, 3))

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, C, H, W) to (n, C, H, W)."""
        kept, changed = y.chunk(2, dim=1)
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat([kept, (changed - shift) * (-log_scale).exp()], dim=1)


class AdditiveCoupling(nn.Module):
    """Shift the second half of the channels by a function of the first; volume preserving.

    Parameters
    ----------
    conditioner : nn.Module
        Computes shifts from the first half, (n, C / 2, H, W) each.
    """

    def __init__(self, conditioner: nn.Module) -> None:
        super().__init__()
        self.conditioner = conditioner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``x``, (n, C, H, W); the log-determinant is 0, of shape (n,)."""
        kept, changed = x.chunk(2, dim=1)
        y = torch.cat([kept, changed + self.conditioner(kept)], dim=1)
        return y, x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, C, H, W) to (n, C, H, W)."""
        kept, changed = y.chunk(2, dim=1)
        return torch.cat([kept, changed - self.conditioner(kept)], dim=1)

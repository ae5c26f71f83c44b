"""Activation normalisation: a learnt scale and shift per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SMALLEST_DEVIATION = 1e-3


class ActNorm(nn.Module):
    """Scale and shift every channel; initialised so that a first batch comes out standardised.

    ``y = x * exp(log_scale) + shift`` (Kingma and Dhariwal 2018, section 3.1).

    Parameters
    ----------
    n_channels : int
        Channels of the input.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(n_channels))
        self.shift = nn.Parameter(torch.zeros(n_channels))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set scale and shift so that every channel of ``x`` gets mean 0 and deviation 1.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)
            A batch that is typical of the data.
        """
        mean = x.mean(dim=(0, 2, 3))
        # A channel that is constant in this batch must not be blown up without limit.
        deviation = x.std(dim=(0, 2, 3), correction=0) + _SMALLEST_DEVIATION
        self.log_scale.copy_(-deviation.log())
        self.shift.copy_(-mean / deviation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise ``x``; also the log-determinant, one number for all samples.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)

        Returns
        -------
        y : Tensor of shape (n, C, H, W)
        log_determinant : Tensor of shape ()
            In nats.
        """
        scale = self.log_scale.exp()[:, None, None]
        positions = x.shape[2] * x.shape[3]
        return x * scale + self.shift[:, None, None], positions * self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, C, H, W) to (n, C, H, W)."""
        return (y - self.shift[:, None, None]) * (-self.log_scale).exp()[:, None, None]

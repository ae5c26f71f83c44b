"""A small U-Net that knows the time."""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MOST_GROUPS = 8
_FEWEST_CHANNELS = 4
_SLOWEST = 10_000.0
# Timesteps are embedded as if there were this many, so that their number does not matter.
_TIME_UNITS = 1000.0


class ResidualBlock(nn.Module):
    """Two convolutions around which the input goes unchanged; the time shifts their channels.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    n_time : int
        Dimensions of the embedded time.
    """

    def __init__(self, n_in: int, n_out: int, n_time: int) -> None:
        super().__init__()
        self.norm1 = _normalisation(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.time = nn.Linear(n_time, n_out)
        self.norm2 = _normalisation(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(n, C, H, W) and (n, n_time) to (n, channels out, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class UNet(nn.Module):
    """From a noisy image and its timestep to an image of the same shape.

    Group normalisation keeps the rows of a batch apart. Images of any size will do: on the way up
    they are enlarged to the size they had on the way down.

    Parameters
    ----------
    n_channels : int
        C.
    n_timesteps : int
        T.
    width : int
        Channels at full size; they double with the first halving, and stay.
    n_scales : int
        Sizes of the image, each half of the one before.
    """

    def __init__(self, n_channels: int, n_timesteps: int, *, width: int, n_scales: int) -> None:
        super().__init__()
        self.n_timesteps = n_timesteps
        widths = [width, *[2 * width] * (n_scales - 1)]
        n_time = 4 * width
        self.register_buffer("rates", _rates(width), persistent=False)
        self.time = nn.Sequential(
            nn.Linear(width + width % 2, n_time), nn.SiLU(), nn.Linear(n_time, n_time), nn.SiLU()
        )
        self.input = nn.Conv2d(n_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        self.halve = nn.ModuleList()
        for finer, coarser in itertools.pairwise(widths):
            self.down.append(ResidualBlock(finer, finer, n_time))
            self.halve.append(nn.Conv2d(finer, coarser, 3, stride=2, padding=1))
        self.middle = nn.ModuleList(
            [ResidualBlock(widths[-1], widths[-1], n_time) for _ in range(2)]
        )
        self.up = nn.ModuleList(
            ResidualBlock(coarser + finer, finer, n_time)
            for finer, coarser in reversed(list(itertools.pairwise(widths)))
        )
        self.output_norm = _normalisation(width)
        self.output = nn.Conv2d(width, n_channels, 3, padding=1)
        # The network starts by predicting nothing.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(cast("Tensor", self.output.bias))

    rates: Tensor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Noisy images ``x``, (n, C, H, W), at timesteps ``t``, (n,), to (n, C, H, W)."""
        time = self.time(self._embed(t))
        hidden = self.input(x)
        finer = []
        for block, halve in zip(self.down, self.halve, strict=True):
            hidden = block(hidden, time)
            finer.append(hidden)
            hidden = halve(hidden)
        for block in self.middle:
            hidden = block(hidden, time)
        for block, skipped in zip(self.up, reversed(finer), strict=True):
            hidden = F.interpolate(hidden, size=skipped.shape[-2:], mode="nearest")
            hidden = block(torch.cat([hidden, skipped], dim=1), time)
        return self.output(F.silu(self.output_norm(hidden)))

    def _embed(self, t: Tensor) -> Tensor:
        phases = t.to(self.rates.dtype)[:, None] * (_TIME_UNITS / self.n_timesteps) * self.rates
        return torch.cat([phases.sin(), phases.cos()], dim=1)


def _normalisation(n_channels: int) -> nn.GroupNorm:
    # A group of one channel would lose that channel's mean, and with it what time and bias add.
    n_groups = min(_MOST_GROUPS, max(1, n_channels // _FEWEST_CHANNELS))
    return nn.GroupNorm(math.gcd(n_channels, n_groups), n_channels)


def _rates(width: int) -> Tensor:
    """Angular frequencies of the time's sines and cosines, from 1 downwards, geometrically."""
    half = (width + 1) // 2
    return torch.exp(-math.log(_SLOWEST) * torch.arange(half) / max(1, half - 1))

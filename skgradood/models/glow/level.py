"""One scale of a Glow: its steps, and the latent variables that leave after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgradood.models.glow.actnorm import ActNorm
from skgradood.models.glow.coupling import AdditiveCoupling, AffineCoupling
from skgradood.models.glow.invertible_conv import InvertibleConv
from skgradood.models.glow.prior import StandardPrior


class FlowStep(nn.Module):
    """One step of the flow: ActNorm, invertible 1x1 convolution, coupling.

    Parameters
    ----------
    actnorm : ActNorm
    permutation : InvertibleConv
    coupling : AffineCoupling or AdditiveCoupling
    """

    def __init__(
        self,
        actnorm: ActNorm,
        permutation: InvertibleConv,
        coupling: AffineCoupling | AdditiveCoupling,
    ) -> None:
        super().__init__()
        self.actnorm = actnorm
        self.permutation = permutation
        self.coupling = coupling

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``x``, (n, C, H, W); also the log-determinants in nats, (n,)."""
        x, log_det_norm = self.actnorm(x)
        x, log_det_permutation = self.permutation(x)
        x, log_det_coupling = self.coupling(x)
        return x, log_det_coupling + log_det_norm + log_det_permutation

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`, (n, C, H, W) to (n, C, H, W)."""
        return self.actnorm.inverse(self.permutation.inverse(self.coupling.inverse(y)))


class Level(nn.Module):
    """One scale of the flow: squeeze, steps, and the latent variables that leave after them.

    Parameters
    ----------
    steps : sequence of FlowStep
    prior : StandardPrior
        Density of the latent variables that leave here.
    is_last : bool
        Whether all variables leave, or half of the channels.
    """

    def __init__(self, steps: Sequence[FlowStep], prior: StandardPrior, *, is_last: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.prior = prior
        self.is_last = is_last

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise every ActNorm from a batch; return what goes on to the next level."""
        x = F.pixel_unshuffle(x, 2)
        for step in self._steps():
            step.actnorm.initialize(x)
            x, _ = step(x)
        return x if self.is_last else x.chunk(2, dim=1)[1]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latent variables that leave here, what goes on, and this level's contribution.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)

        Returns
        -------
        latent : Tensor of shape (n, C_l, H / 2, W / 2)
        rest : Tensor of the same shape
            On the last level the latent variables themselves.
        contribution : Tensor of shape (n,)
            Log-determinants of the steps and log-density of the latent variables, nats.
        """
        x = F.pixel_unshuffle(x, 2)
        log_density = x.new_zeros(len(x))
        for step in self._steps():
            x, log_determinant = step(x)
            log_density = log_density + log_determinant
        latent, rest = (x, x) if self.is_last else x.chunk(2, dim=1)
        return latent, rest, log_density + self.prior.log_prob(latent, rest)

    def decode(self, latent: Tensor, rest: Tensor | None) -> Tensor:
        """Undo `encode`; ``rest`` is None on the last level."""
        x = latent if rest is None else torch.cat([latent, rest], dim=1)
        for step in reversed(self._steps()):
            x = step.inverse(x)
        return F.pixel_shuffle(x, 2)

    def _steps(self) -> list[FlowStep]:
        return cast("list[FlowStep]", list(self.steps))

"""How much noise an image has at each timestep."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from skgradood.models._options import look_up

# From noise of half a bin, x_0 being in (-1, 1), to next to nothing of the image. Less noise at
# first would ask the network to know the grid of pixel values: a denoiser that does not would lose
# .41 nats a dimension at a sixth of a bin, .02 at half a bin.
_LOG_SNR = (11.1, -5.0)
_LARGEST_BETA = 0.999


def _log_snr_linear(n_timesteps: int) -> Tensor:
    log_snr = torch.linspace(*_LOG_SNR, n_timesteps, dtype=torch.float64)
    kept = log_snr.sigmoid()
    return 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])


def _linear(n_timesteps: int) -> Tensor:
    # Ho et al. took 1000 steps; with fewer, each adds more noise.
    factor = 1000 / n_timesteps
    betas = torch.linspace(1e-4 * factor, 0.02 * factor, n_timesteps, dtype=torch.float64)
    return betas.clamp(max=_LARGEST_BETA)


def _cosine(n_timesteps: int) -> Tensor:
    times = torch.linspace(0, 1, n_timesteps + 1, dtype=torch.float64)
    kept = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=_LARGEST_BETA)


_SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "log_snr": _log_snr_linear,
    "linear": _linear,
    "cosine": _cosine,
}


class Schedule:
    """The Markov chain q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t), t = 1...T.

    All tables are float64 on the CPU and have T entries, the first for t = 1.

    Parameters
    ----------
    name : {"log_snr", "linear", "cosine"}
        Which betas.
    n_timesteps : int
        T, at least 2.
    variance : {"posterior", "forward"}
        Variance of p(x_{t-1} | x_t) for t > 1: that of q(x_{t-1} | x_t, x_0), or beta_t.

    Attributes
    ----------
    betas : Tensor of shape (T,)
    signal, noise : Tensor of shape (T,)
        x_t = signal x_0 + noise epsilon.
    posterior_variance : Tensor of shape (T,)
        Variance of q(x_{t-1} | x_t, x_0); 0 for t = 1.
    model_variance : Tensor of shape (T,)
        Variance of p(x_{t-1} | x_t); beta_1 for t = 1.
    error_weight : Tensor of shape (T,)
        Nats of KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for each unit of squared error in the
        predicted noise; 0 for t = 1, which is no such term.
    floor : Tensor of shape (T,)
        Nats of the same divergence in each dimension, whatever is predicted.
    """

    def __init__(self, name: str, n_timesteps: int, variance: str) -> None:
        if n_timesteps < 2:
            raise ValueError(f"n_timesteps must be at least 2; got {n_timesteps}")
        self.betas = look_up(_SCHEDULES, name, "schedule")(n_timesteps)
        kept = (1 - self.betas).cumprod(0)
        # 1 - kept by the recursion that loses no digits where little noise has been added.
        lost = torch.zeros_like(kept)
        total = kept.new_zeros(())
        for t, beta in enumerate(self.betas):
            total = total + beta * (1 - total)
            lost[t] = total
        self.signal, self.noise = kept.sqrt(), lost.sqrt()
        lost_before = torch.cat([lost.new_zeros(1), lost[:-1]])
        self.posterior_variance = self.betas * lost_before / lost
        self.model_variance = look_up(
            {"posterior": self.posterior_variance, "forward": self.betas}, variance, "variance"
        ).clone()
        self.model_variance[0] = self.betas[0]
        # Means differ by beta / (noise sqrt(1 - beta)) times the error (Ho et al., equation 12).
        squared_slope = self.betas**2 / (lost * (1 - self.betas))
        self.error_weight = squared_slope / (2 * self.model_variance)
        self.error_weight[0] = 0
        ratio = self.posterior_variance / self.model_variance
        self.floor = 0.5 * (ratio - 1 - ratio.log())
        self.floor[0] = 0

    def __len__(self) -> int:
        return len(self.betas)

    def at(self, table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Entries of a table at timesteps ``t``, (m,), laid out to scale images (m, C, H, W)."""
        entries = torch.take(table.to(like.device, like.dtype), t - 1)
        return entries[:, None, None, None]

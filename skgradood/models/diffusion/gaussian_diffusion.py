"""Gaussian diffusion with its evidence lower bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skgradood.models._options import look_up
from skgradood.models._pixels import check_image_shape, from_unit
from skgradood.models.diffusion.rounded_normal import BIN, log_mass, to_signed_unit
from skgradood.models.diffusion.schedule import Schedule
from skgradood.models.diffusion.unet import UNet

# The share of training images that go to the last step of the chain, which has a loss of its own.
_FIRST_SHARE = 0.1
# Without gradients, at most about this many numbers go through the network at once.
_NUMBERS_AT_ONCE = 1 << 20
_SHARED_SEED = 0


class Denoised(NamedTuple):
    """What the network makes of the noisy versions of n images.

    Attributes
    ----------
    squared_error : Tensor of shape (n, draws, timesteps)
        Of the predicted noise, summed over pixels.
    log_prob_first : Tensor of shape (n, draws)
        log p(x_0 | x_1) in nats, where the first of the timesteps is 1.
    """

    squared_error: Tensor
    log_prob_first: Tensor


class GaussianDiffusion(nn.Module):
    """Denoising diffusion of images of 256 grey values a channel, with its bound in nats.

    Noise is added to an image in T steps, x_t = signal_t x_0 + noise_t epsilon; a U-Net learns to
    undo them one by one. The evidence lower bound (Ho et al. 2020, equation 5) is

    log p(x_0 | x_1) - sum over t = 2...T of KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
    - KL(q(x_T | x_0) || p(x_T)),

    where the divergences between normal distributions are exact and p(x_0 | x_1) is a normal
    distribution rounded to the 256 values. The expectation over the noise is estimated with
    ``n_draws`` draws, the sum with ``n_timesteps_eval`` timesteps, without bias.

    The network sees standardised images and corrects the best linear denoiser, so that the model
    starts as a normal distribution with the mean and the variance of each channel of the data.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``.
    n_timesteps : int, default=400
        T, at least 2. Training and `log_prob` cost no more with more of them, samples do; too few
        loosen the bound (by .3 nats a dimension with 100, .08 with 400, for normal data).
    schedule : {"log_snr", "linear", "cosine"}, default="log_snr"
        How noise grows: a signal-to-noise ratio that falls geometrically (Kingma et al.), from
        noise of half a grey value; or the schedules of Ho et al. and of Nichol and Dhariwal.
    variance : {"posterior", "forward"}, default="posterior"
        Variance of p(x_{t-1} | x_t) for t > 1: that of q(x_{t-1} | x_t, x_0), or beta_t.
    width : int, default=32
        Channels of the U-Net at full size.
    n_scales : int, default=3
        Sizes of the image in the U-Net, each half of the one before.
    objective : {"elbo", "simple"}, default="elbo"
        What `training_loss` estimates: the bound, or the unweighted error of the predicted noise.
    n_timesteps_eval : int or None, default=16
        Timesteps among 2...T at which `log_prob` estimates the sum, drawn in proportion to what
        an error there costs, one from each of so many equal shares; None: all of them. Timestep 1
        is always among them.
    n_draws : int, default=1
        Draws of noise, and of timesteps, over which `log_prob` averages.
    noise : {"row", "shared"}, default="row"
        Where `log_prob` takes them from if it is given a generator: from that, or always the same
        numbers for every image, as it does without a generator. The shared numbers make results
        deterministic and differences between images less noisy, but are chosen once.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of an image, a number is too small, or for an unknown option.

    References
    ----------
    Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020; Nichol and
    Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021; Kingma, Salimans,
    Poole and Ho, "Variational diffusion models", NeurIPS 2021.
    """

    input_kind = "image"
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_timesteps: int = 400,
        schedule: str = "log_snr",
        variance: str = "posterior",
        width: int = 32,
        n_scales: int = 3,
        objective: str = "elbo",
        n_timesteps_eval: int | None = 16,
        n_draws: int = 1,
        noise: str = "row",
    ) -> None:
        super().__init__()
        self.input_shape = check_image_shape(input_shape, smallest=1)
        for name, number in [("n_timesteps_eval", n_timesteps_eval), ("n_draws", n_draws)]:
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}")
        look_up(_OBJECTIVES, objective, "objective")
        look_up({"row": True, "shared": False}, noise, "noise")
        self.n_timesteps = n_timesteps
        self.variance = variance
        self.width = width
        self.n_scales = n_scales
        self.objective = objective
        self.n_timesteps_eval = n_timesteps_eval
        self.n_draws = n_draws
        self.noise = noise
        self.schedule = schedule
        self.chain = Schedule(schedule, n_timesteps, variance)
        n_channels = self.input_shape[0]
        self.register_buffer("location", torch.zeros(n_channels, 1, 1))
        self.register_buffer("scale", torch.full((n_channels, 1, 1), 0.5))
        self.unet = UNet(n_channels, n_timesteps, width=width, n_scales=n_scales)

    @torch.no_grad()
    def initialize(self, X: Tensor) -> None:
        """Take the moments that standardise the channels from a batch, (n, C, H, W)."""
        x = to_signed_unit(X, self.scale.dtype)
        self.location.copy_(x.mean(dim=(0, 2, 3))[:, None, None])
        deviation = x.std(dim=(0, 2, 3), correction=0)
        self.scale.copy_(deviation.clamp_min(BIN)[:, None, None])

    def log_prob(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Evidence lower bound, or an unbiased estimate of it.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            Source of timesteps and noise; without one, or with ``noise="shared"``, they are the
            same for every image in every call.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        x0 = self._pixels(X)
        m = self.n_timesteps_eval
        if m is None or m >= self.n_timesteps - 1:
            return self._by_timestep(x0, generator).sum(dim=1)
        times = self._draw_timesteps(x0, m, generator)
        denoised = self._denoise(x0, times, self._draw_noise(x0, times.shape[2], generator))
        weight = float(self.chain.error_weight.sum()) / m
        error = weight * denoised.squared_error[:, :, 1:].sum(dim=2)
        return (denoised.log_prob_first - error).mean(dim=1) - self._constant_nats(x0)

    def elbo_by_timestep(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The terms of the bound, at all timesteps.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            As in `log_prob`.

        Returns
        -------
        Tensor of shape (n, T + 1)
            Nats: log p(x_0 | x_1), the negative divergences for t = 2...T, and that of x_T from
            the prior. Rows sum to `log_prob` where ``n_timesteps_eval`` is None.
        """
        return self._by_timestep(self._pixels(X), generator)

    def training_loss(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """An estimate of what ``objective`` names, with one timestep for each image.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            Source of timesteps and noise.

        Returns
        -------
        Tensor of shape (n,)
            Nats of the negative bound, or half the squared error of the predicted noise, summed
            over pixels, whose unit is not nats.
        """
        x0 = self._pixels(X)
        # Spread evenly over the batch, timesteps vary less (Kingma et al. 2021, appendix I.1).
        start = torch.rand(1, generator=generator, dtype=x0.dtype, device=x0.device)
        evenly = (torch.arange(len(x0), dtype=x0.dtype, device=x0.device) + start) / len(x0)
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        return _OBJECTIVES[self.objective](self, x0, evenly, noise)

    def predict_noise(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise in noisy images.

        Parameters
        ----------
        x : Tensor of shape (n, C, H, W)
        t : Tensor of shape (n,), int64
            Timesteps 1...T.

        Returns
        -------
        Tensor of shape (n, C, H, W)
        """
        signal, noise = (self.chain.at(s, t, x) for s in _noise_tables(self.chain))
        centred = x - signal * self.location
        deviation = ((signal * self.scale) ** 2 + noise**2).sqrt()
        standardised = centred / deviation
        # What a normal distribution leaves unexplained has this deviation.
        left = signal * self.scale / deviation
        return noise / deviation * standardised + left * self.unet(standardised, t)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw images from the model, step by step from pure noise.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Source of the noise, on the model's device.

        Returns
        -------
        Tensor of shape (n, C, H, W), uint8
        """
        like = self.scale

        def draw() -> Tensor:
            shape = (n, *self.input_shape)
            return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)

        x = draw()
        for t in range(self.n_timesteps, 0, -1):
            times = torch.full((n,), t, device=like.device)
            deviation = self.chain.model_variance[t - 1].sqrt().item()
            x = self._mean_before(x, times, self.predict_noise(x, times)) + deviation * draw()
        return from_unit(x / 2)

    def _pixels(self, X: Tensor) -> Tensor:
        return to_signed_unit(X, self.scale.dtype)

    def _by_timestep(self, x0: Tensor, generator: torch.Generator | None) -> Tensor:
        """`elbo_by_timestep` of pixels in (-1, 1)."""
        all_times = torch.arange(1, self.n_timesteps + 1, device=x0.device)
        times = _of_rows(x0) + all_times.expand(self.n_draws, -1)
        denoised = self._denoise(x0, times, self._draw_noise(x0, self.n_timesteps, generator))
        weights = self.chain.error_weight[1:].to(x0.device, x0.dtype)
        floors = self.chain.floor[1:].to(x0.device, x0.dtype) * x0[0].numel()
        divergences = weights * denoised.squared_error[:, :, 1:].mean(dim=1) + floors
        first = denoised.log_prob_first.mean(dim=1)
        return torch.cat(
            [first[:, None], -divergences, -self._prior_divergence(x0)[:, None]], dim=1
        )

    def _denoise(self, x0: Tensor, times: Tensor, noise: Tensor) -> Denoised:
        """Run the network at ``times``, (n, draws, k), with ``noise`` (n * draws * k, C, H, W)."""
        t = times.flatten()
        clean = x0.repeat_interleave(times.shape[1] * times.shape[2], dim=0)
        signal, deviation = (self.chain.at(s, t, x0) for s in _noise_tables(self.chain))
        noisy = signal * clean + deviation * noise
        predicted = self._predict_in_parts(noisy, t)
        squared_error = (predicted - noise).square().sum(dim=(1, 2, 3)).unflatten(0, times.shape)
        by_time = (x0.shape[0], *times.shape[1:])
        first = [v.unflatten(0, by_time)[:, :, 0] for v in (noisy, t, predicted)]
        noisy_first, t_first, predicted_first = (v.flatten(0, 1) for v in first)
        log_prob_first = self._log_prob_first(
            x0.repeat_interleave(times.shape[1], dim=0), noisy_first, t_first, predicted_first
        )
        return Denoised(squared_error, log_prob_first.unflatten(0, by_time[:2]))

    def _log_prob_first(self, x0: Tensor, x1: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
        """Nats of p(x_0 | x_1), (m,)."""
        mean = self._mean_before(x1, t, predicted)
        deviation = self.chain.at(self.chain.model_variance.sqrt(), t, x0)
        return log_mass(x0, mean, deviation).sum(dim=(1, 2, 3))

    def _mean_before(self, x: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
        """Mean of p(x_{t-1} | x_t), (m, C, H, W), from the predicted noise."""
        slope = self.chain.at(self.chain.betas / self.chain.noise, t, x)
        shrinkage = self.chain.at((1 - self.chain.betas).sqrt(), t, x)
        return (x - slope * predicted) / shrinkage

    def _predict_in_parts(self, noisy: Tensor, t: Tensor) -> Tensor:
        """`predict_noise`; without gradients, no more at once than a batch of training takes."""
        size = max(1, _NUMBERS_AT_ONCE // (self.width * noisy[0, 0].numel()))
        if torch.is_grad_enabled() or len(t) <= size:
            return self.predict_noise(noisy, t)
        parts = zip(noisy.split(size), t.split(size), strict=True)
        return torch.cat([self.predict_noise(*part) for part in parts])

    def _prior_divergence(self, x0: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, 1)), (n,) nats."""
        signal, noise = (float(table[-1]) for table in _noise_tables(self.chain))
        constant = 0.5 * (noise**2 - 1) - np.log(noise)
        return (0.5 * signal**2 * x0.square() + constant).sum(dim=(1, 2, 3))

    def _constant_nats(self, x0: Tensor) -> Tensor:
        """What of the negative bound no prediction changes, (n,)."""
        return self._prior_divergence(x0) + float(self.chain.floor.sum()) * x0[0].numel()

    def _draw_timesteps(self, x0: Tensor, m: int, generator: torch.Generator | None) -> Tensor:
        """Timestep 1, and one from each of m equal shares of the others, (n, draws, 1 + m)."""
        shape = (len(x0), self.n_draws, m)
        if self._shares_noise(generator):
            position = _of_rows(x0) + torch.full(shape[1:], 0.5, dtype=x0.dtype, device=x0.device)
        else:
            position = torch.rand(shape, generator=generator, dtype=x0.dtype, device=x0.device)
        shares = torch.arange(m, dtype=x0.dtype, device=x0.device)
        times = self._timesteps_at((position + shares) / m)
        return torch.cat([torch.ones_like(times[:, :, :1]), times], dim=2)

    def _timesteps_at(self, quantile: Tensor) -> Tensor:
        """Timesteps 2...T at quantiles of the distribution in proportion to the error's weight."""
        cumulated = self.chain.error_weight[1:].cumsum(0)
        cumulated = (cumulated / cumulated[-1]).to(quantile.device, quantile.dtype)
        index = torch.searchsorted(cumulated, quantile, right=True)
        return (index + 2).clamp(max=self.n_timesteps)

    def _draw_noise(self, x0: Tensor, k: int, generator: torch.Generator | None) -> Tensor:
        """Noise for k timesteps of every draw, (n * draws * k, C, H, W)."""
        count = self.n_draws * k
        if not self._shares_noise(generator):
            shape = (len(x0), count, *x0.shape[1:])
            drawn = torch.randn(shape, generator=generator, dtype=x0.dtype, device=x0.device)
            return drawn.flatten(0, 1)
        # NumPy's generator gives the same numbers on every device.
        shared = np.random.default_rng(_SHARED_SEED).standard_normal((count, *x0.shape[1:]))
        noise = torch.from_numpy(shared).to(x0.device, x0.dtype)
        return (torch.zeros_like(x0)[:, None] + noise).flatten(0, 1)

    def _shares_noise(self, generator: torch.Generator | None) -> bool:
        return generator is None or self.noise == "shared"


def _of_rows(x0: Tensor) -> Tensor:
    """Zeros that belong to the rows of a batch, (n, 1, 1): what is added to them does, too."""
    return torch.zeros_like(x0[:, 0, 0, 0], dtype=torch.int64)[:, None, None]


def _noise_tables(chain: Schedule) -> tuple[Tensor, Tensor]:
    return chain.signal, chain.noise


def _negative_elbo(model: GaussianDiffusion, x0: Tensor, evenly: Tensor, noise: Tensor) -> Tensor:
    """The negative bound with one timestep for each image, (n,) nats."""
    is_first = evenly < _FIRST_SHARE
    rest = ((evenly - _FIRST_SHARE) / (1 - _FIRST_SHARE)).clamp(min=0)
    t = torch.where(is_first, 1, model._timesteps_at(rest))
    denoised = model._denoise(x0, t[:, None, None], noise)
    weight = float(model.chain.error_weight.sum()) / (1 - _FIRST_SHARE)
    error = weight * denoised.squared_error[:, 0, 0]
    nats = torch.where(is_first, -denoised.log_prob_first[:, 0] / _FIRST_SHARE, error)
    return nats + model._constant_nats(x0)


def _simple_loss(model: GaussianDiffusion, x0: Tensor, evenly: Tensor, noise: Tensor) -> Tensor:
    """Half the squared error of the predicted noise, all timesteps alike (Ho et al., eq. 14)."""
    t = 1 + (evenly * model.n_timesteps).long().clamp(max=model.n_timesteps - 1)
    return 0.5 * model._denoise(x0, t[:, None, None], noise).squared_error[:, 0, 0]


_OBJECTIVES: dict[str, Callable[[GaussianDiffusion, Tensor, Tensor, Tensor], Tensor]] = {
    "elbo": _negative_elbo,
    "simple": _simple_loss,
}

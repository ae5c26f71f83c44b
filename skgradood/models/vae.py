"""A variational autoencoder of the DCGAN kind, with 256-way categorical pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgradood.models._pixels import N_VALUES, check_image_shape, to_unit

_N_HALVINGS = 3
# A posterior wider or narrower than this means that training has gone astray; exp() stays finite.
_LOG_VARIANCE_LIMITS = (-20.0, 10.0)


class VAE(nn.Module):
    """Variational autoencoder of images of 256 grey values a channel.

    Three convolutions of stride 2 lead to the posterior mean and log-variance, four transposed
    ones back to 256 logits for every channel of every pixel (the model of ROSE and of Likelihood
    Regret). Convolutions are followed by batch normalisation and a rectifier; those that give
    moments or logits have a bias instead.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``, height and width of at least 8, not necessarily equal.
    latent_dim : int, default=100
        Dimensions of the latent variable.
    width : int, default=32
        Channels after the first convolution; they double with each halving of the image.

    Raises
    ------
    ValueError
        If ``input_shape`` is not that of an image of at least 8 x 8.

    References
    ----------
    Xiao, Yan and Amit, "Likelihood Regret", NeurIPS 2020.
    """

    input_kind = "image"

    def __init__(
        self, input_shape: Sequence[int], *, latent_dim: int = 100, width: int = 32
    ) -> None:
        super().__init__()
        self.input_shape = check_image_shape(input_shape, smallest=2**_N_HALVINGS)
        self.latent_dim = latent_dim
        n_channels = self.input_shape[0]
        channels = [n_channels, *(width * 2**i for i in range(_N_HALVINGS))]
        _, height, width = self.input_shape
        sizes = [(height >> i, width >> i) for i in range(_N_HALVINGS + 1)]

        encoder: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(channels):
            encoder += _normalised(nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=False))
        self.encoder = nn.Sequential(*encoder)
        self.to_mean = nn.Conv2d(channels[-1], latent_dim, sizes[-1])
        self.to_log_variance = nn.Conv2d(channels[-1], latent_dim, sizes[-1])

        decoder = _normalised(nn.ConvTranspose2d(latent_dim, channels[-1], sizes[-1], bias=False))
        for i in reversed(range(1, _N_HALVINGS)):
            upsample = _doubling(channels[i + 1], channels[i], sizes[i + 1], sizes[i], bias=False)
            decoder += _normalised(upsample)
        decoder.append(_doubling(channels[1], N_VALUES * n_channels, sizes[1], sizes[0], bias=True))
        self.decoder = nn.Sequential(*decoder)

    def log_prob(self, X: Tensor) -> Tensor:
        """Evidence lower bound with the decoder evaluated at the posterior mean; noise-free.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        return self.bound(X, *self.encode(X))

    def elbo(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Evidence lower bound, estimated with one draw from the posterior.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            Source of the draw.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        mean, log_variance = self.encode(X)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.bound(X, mean, log_variance, noise)

    def bound(
        self, X: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Evidence lower bound at any normal posterior, not only that of `encode`.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        mean, log_variance : Tensor of shape (n, latent_dim)
            Moments of the posterior.
        noise : Tensor of shape (n, latent_dim), optional
            Standard normal numbers that choose a point of the posterior at which to decode; its
            mean by default.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        latent = mean if noise is None else mean + noise * (0.5 * log_variance).exp()
        return self._pixel_log_prob(X, latent) - _divergence(mean, log_variance)

    def log_prob_iw(
        self, X: Tensor, generator: torch.Generator | None = None, k: int = 64
    ) -> Tensor:
        """Importance-weighted bound: the log of the mean of p(x, z) / q(z | x) over k draws.

        It lies above the evidence lower bound on average and tends to the log-likelihood as k
        grows (Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016,
        equation 8). As ``log_likelihood="log_prob_iw"`` it serves detectors and transformers, with
        draws that belong to the row; for another k pass a callable
        ``(module, X, generator) -> module.log_prob_iw(X, generator, k)``.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            Source of the draws.
        k : int, default=64
            Draws from the posterior, for each of which the decoder runs once.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        mean, log_variance = self.encode(X)
        log_weights = []
        for _ in range(k):
            noise = torch.randn(
                mean.shape, generator=generator, dtype=mean.dtype, device=mean.device
            )
            latent = mean + noise * (0.5 * log_variance).exp()
            # The constants of the two normal densities cancel.
            log_ratio = 0.5 * (noise**2 + log_variance - latent**2).sum(dim=1)
            log_weights.append(self._pixel_log_prob(X, latent) + log_ratio)
        return torch.stack(log_weights).logsumexp(dim=0) - math.log(k)

    def training_loss(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The negative of `elbo`, (n,) nats."""
        return -self.elbo(X, generator)

    def encode(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        mean, log_variance : Tensor of shape (n, latent_dim)
        """
        hidden = self.encoder(2 * to_unit(X, self.to_mean.weight.dtype))
        log_variance = self.to_log_variance(hidden).flatten(1).clamp(*_LOG_VARIANCE_LIMITS)
        return self.to_mean(hidden).flatten(1), log_variance

    def decode(self, latent: Tensor) -> Tensor:
        """Logits of the 256 values of every pixel.

        Parameters
        ----------
        latent : Tensor of shape (n, latent_dim)

        Returns
        -------
        Tensor of shape (n, 256, C, H, W)
        """
        return self.decoder(latent[:, :, None, None]).unflatten(1, (N_VALUES, self.input_shape[0]))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw images from the model: the latent variable, then every pixel.

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
        weight = self.to_mean.weight
        latent = torch.randn(
            n, self.latent_dim, generator=generator, dtype=weight.dtype, device=weight.device
        )
        probabilities = self.decode(latent).movedim(1, -1).softmax(dim=-1)
        pixels = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        return pixels.reshape(n, *self.input_shape).to(torch.uint8)

    def _pixel_log_prob(self, X: Tensor, latent: Tensor) -> Tensor:
        # The logits are by far the largest tensor of the model: one fused pass over them.
        loss = F.cross_entropy(self.decode(latent), X.long(), reduction="none")
        return -loss.sum(dim=(1, 2, 3))


def _normalised(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]


def _doubling(
    n_in: int, n_out: int, size: tuple[int, int], target: tuple[int, int], *, bias: bool
) -> nn.ConvTranspose2d:
    """A transposed convolution to twice the size, or one more where the target is odd."""
    padding = (target[0] - 2 * size[0], target[1] - 2 * size[1])
    return nn.ConvTranspose2d(
        n_in, n_out, 4, stride=2, padding=1, output_padding=padding, bias=bias
    )


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the posterior from a standard normal, (n,) nats."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)

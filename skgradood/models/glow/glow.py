"""Glow: a multi-scale flow with invertible 1x1 convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgradood.models._options import look_up
from skgradood.models._pixels import N_VALUES, check_image_shape, from_unit, to_unit
from skgradood.models.glow.actnorm import ActNorm
from skgradood.models.glow.coupling import AdditiveCoupling, AffineCoupling
from skgradood.models.glow.invertible_conv import (
    InvertibleConv,
    LUInvertibleConv,
    PlainInvertibleConv,
)
from skgradood.models.glow.prior import ConditionalPrior, StandardPrior, TopPrior

# Factors above e multiply over the steps: with a bound of 2, single batches exploded in training.
_SCALE_BOUND = 1.0

_COUPLINGS: dict[str, Callable[[int, int], AffineCoupling | AdditiveCoupling]] = {
    "affine": lambda n, hidden: AffineCoupling(n, hidden, _SCALE_BOUND),
    "additive": AdditiveCoupling,
}
_PERMUTATIONS: dict[str, Callable[[int], InvertibleConv]] = {
    "lu": LUInvertibleConv,
    "plain": PlainInvertibleConv,
}
# By (learned_prior, is_last).
_PRIORS: dict[tuple[bool, bool], type[StandardPrior]] = {
    (False, False): StandardPrior,
    (False, True): StandardPrior,
    (True, False): ConditionalPrior,
    (True, True): TopPrior,
}


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


class Glow(nn.Module):
    """Glow on images of 256 grey values a channel.

    The log-likelihood is that of the discrete data: values are spread uniformly over their bin
    while training (uniform dequantisation), which bounds it from below; `log_prob` evaluates the
    density noise-free at the midpoint of the bins.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``; height and width must be divisible by ``2 ** n_levels``.
    n_levels : int, default=2
        Scales, L in the paper.
    n_steps : int, default=8
        Steps of flow a scale, K in the paper.
    hidden_channels : int, default=96
        Width of the networks inside the couplings.
    coupling : {"affine", "additive"}, default="affine"
        Whether couplings scale and shift, or only shift.
    permutation : {"lu", "plain"}, default="lu"
        How the invertible 1x1 convolutions are parametrised.
    learned_prior : bool, default=True
        Whether mean and scale of the latent variables are learnt (those of the finer scales as a
        function of the coarser ones) or standard normal.

    Raises
    ------
    ValueError
        For an image size that the levels do not divide, or an unknown option.

    References
    ----------
    Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018.
    """

    input_kind = "image"

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        n_levels: int = 2,
        n_steps: int = 8,
        hidden_channels: int = 96,
        coupling: str = "affine",
        permutation: str = "lu",
        learned_prior: bool = True,
    ) -> None:
        super().__init__()
        self.input_shape = check_image_shape(input_shape, smallest=2)
        _check_levels(self.input_shape, n_levels)
        make_coupling = look_up(_COUPLINGS, coupling, "coupling")
        make_permutation = look_up(_PERMUTATIONS, permutation, "permutation")

        self.levels = nn.ModuleList()
        n_channels, height, width = self.input_shape
        for level in range(n_levels):
            n_channels, height, width = 4 * n_channels, height // 2, width // 2
            is_last = level == n_levels - 1
            steps = [
                FlowStep(
                    ActNorm(n_channels),
                    make_permutation(n_channels),
                    make_coupling(n_channels, hidden_channels),
                )
                for _ in range(n_steps)
            ]
            n_channels = n_channels if is_last else n_channels // 2
            make_prior = _PRIORS[learned_prior, is_last]
            prior = make_prior((n_channels, height, width))
            self.levels.append(Level(steps, prior, is_last=is_last))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def log_prob(self, X: Tensor) -> Tensor:
        """Log-likelihood of images, noise-free at the midpoint of every value's bin.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        return self.log_prob_contributions(X).sum(dim=1)

    def log_prob_contributions(self, X: Tensor) -> Tensor:
        """What every scale contributes to `log_prob`, finest first.

        A scale's contribution is the log-density of the latent variables that leave there and
        the log-determinants of its steps; rows sum to `log_prob`.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.

        Returns
        -------
        Tensor of shape (n, n_levels)
            Nats.
        """
        return self._contributions(to_unit(X, self._dtype))

    def training_loss(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Negative log-density of images under uniform dequantisation noise, (n,) nats.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            Source of the noise.
        """
        noise = torch.rand(X.shape, generator=generator, dtype=self._dtype, device=X.device)
        return -self._contributions(to_unit(X, self._dtype, noise)).sum(dim=1)

    @torch.no_grad()
    def initialize(self, X: Tensor) -> None:
        """Initialise every ActNorm from the data, in one pass.

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255 of a batch that is typical of the data.
        """
        x = to_unit(X, self._dtype)
        for level in self._levels():
            x = level.initialize(x)

    def encode(self, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Latent variables of every scale, finest first, and their log-density contributions.

        Parameters
        ----------
        y : Tensor of shape (n, C, H, W)
            Images in the continuous range (-0.5, 0.5) the flow works on.

        Returns
        -------
        latents : list of Tensor of shape (n, C_l, H_l, W_l)
        contributions : list of Tensor of shape (n,)
            Nats; they sum to the log-density at ``y``.
        """
        latents, contributions = [], []
        for level in self._levels():
            latent, y, contribution = level.encode(y)
            latents.append(latent)
            contributions.append(contribution)
        return latents, contributions

    def decode(self, latents: Sequence[Tensor]) -> Tensor:
        """Undo `encode`: images in (-0.5, 0.5) from the latent variables of every scale.

        Parameters
        ----------
        latents : sequence of Tensor of shape (n, C_l, H_l, W_l)
            As `encode` returns them.

        Returns
        -------
        Tensor of shape (n, C, H, W)
        """
        y: Tensor | None = None
        for level, latent in zip(reversed(self._levels()), reversed(latents), strict=True):
            y = level.decode(latent, y)
        return cast("Tensor", y)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw images from the model.

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
        y: Tensor | None = None
        for level in reversed(self._levels()):
            y = level.decode(level.prior.sample(n, y, generator), y)
        return from_unit(cast("Tensor", y))

    def _levels(self) -> list[Level]:
        return cast("list[Level]", list(self.levels))

    def _contributions(self, y: Tensor) -> Tensor:
        latents, contributions = self.encode(y)
        # From a density over the unit cube to one over the grid 0...255.
        return torch.stack(
            [
                log_density - latent[0].numel() * math.log(N_VALUES)
                for latent, log_density in zip(latents, contributions, strict=True)
            ],
            dim=1,
        )


def _check_levels(input_shape: tuple[int, int, int], n_levels: int) -> None:
    _, height, width = input_shape
    largest = 0
    while height % 2 ** (largest + 1) == 0 and width % 2 ** (largest + 1) == 0:
        largest += 1
    if 1 <= n_levels <= largest:
        return
    advice = (
        f"the largest n_levels that fits is {largest}"
        if largest
        else "Glow needs an even height and width: pad or crop the images"
    )
    raise ValueError(
        f"n_levels={n_levels} needs a height and width divisible by {2 ** max(n_levels, 1)}; got "
        f"images of {height} x {width}: {advice}"
    )

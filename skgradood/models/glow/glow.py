"""Glow: a multi-scale flow with invertible 1x1 convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgradood.models._options import look_up
from skgradood.models._pixels import N_VALUES, check_image_shape, from_unit, to_unit
from skgradood.models.glow.actnorm import ActNorm
from skgradood.models.glow.coupling import AdditiveCoupling, AffineCoupling
from skgradood.models.glow.invertible_conv import LUInvertibleConv, PlainInvertibleConv
from skgradood.models.glow.prior import ConditionalPrior, StandardPrior, TopPrior

_SCALE_BOUND = 2.0

_COUPLINGS: dict[str, Callable[[int, int], nn.Module]] = {
    "affine": lambda n, hidden: AffineCoupling(n, hidden, _SCALE_BOUND),
    "additive": AdditiveCoupling,
}
_PERMUTATIONS: dict[str, Callable[[int], nn.Module]] = {
    "lu": LUInvertibleConv,
    "plain": PlainInvertibleConv,
}


class FlowStep(nn.Module):
    """One step of the flow: ActNorm, invertible 1x1 convolution, coupling.

    Parameters
    ----------
    actnorm, permutation, coupling : nn.Module
        The three maps, in this order; each has ``forward(x) -> (y, log_determinant)`` and
        ``inverse(y) -> x``.
    """

    def __init__(self, actnorm: ActNorm, permutation: nn.Module, coupling: nn.Module) -> None:
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
        self.priors = nn.ModuleList()
        n_channels, height, width = self.input_shape
        for level in range(n_levels):
            n_channels, height, width = 4 * n_channels, height // 2, width // 2
            self.levels.append(
                nn.ModuleList(
                    FlowStep(
                        ActNorm(n_channels),
                        make_permutation(n_channels),
                        make_coupling(n_channels, hidden_channels),
                    )
                    for _ in range(n_steps)
                )
            )
            is_last = level == n_levels - 1
            n_channels = n_channels if is_last else n_channels // 2
            shape = (n_channels, height, width)
            if not learned_prior:
                self.priors.append(StandardPrior(shape))
            elif is_last:
                self.priors.append(TopPrior(shape))
            else:
                self.priors.append(ConditionalPrior(shape))

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
        return self.contributions(X).sum(dim=1)

    def contributions(self, X: Tensor) -> Tensor:
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
        for level, steps in enumerate(self.levels):
            x = F.pixel_unshuffle(x, 2)
            for step in steps:
                step.actnorm.initialize(x)
                x, _ = step(x)
            if level < len(self.levels) - 1:
                _, x = x.chunk(2, dim=1)

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
        for level, (steps, prior) in enumerate(zip(self.levels, self.priors, strict=True)):
            y = F.pixel_unshuffle(y, 2)
            log_density = y.new_zeros(len(y))
            for step in steps:
                y, log_determinant = step(y)
                log_density = log_density + log_determinant
            leaving = y
            if level < len(self.levels) - 1:
                leaving, y = y.chunk(2, dim=1)
            latents.append(leaving)
            contributions.append(log_density + prior.log_prob(leaving, y))
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
        return self._decode(lambda level, rest: latents[level])

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
        return from_unit(
            self._decode(lambda level, rest: self.priors[level].sample(n, rest, generator))
        )

    def _decode(self, latent_of: Callable[[int, Tensor | None], Tensor]) -> Tensor:
        y = None
        for level in reversed(range(len(self.levels))):
            leaving = latent_of(level, y)
            y = leaving if y is None else torch.cat([leaving, y], dim=1)
            for step in reversed(self.levels[level]):
                y = step.inverse(y)
            y = F.pixel_shuffle(y, 2)
        return y

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

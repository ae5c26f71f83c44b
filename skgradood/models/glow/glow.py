"""Glow: a multi-scale flow with invertible 1x1 convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from skgradood.models._options import look_up
from skgradood.models._pixels import N_VALUES, check_image_shape, from_unit, to_unit
from skgradood.models.glow.actnorm import ActNorm
from skgradood.models.glow.class_conditional import ClassConditional
from skgradood.models.glow.conditioners import CONDITIONERS, Conditioner
from skgradood.models.glow.coupling import AdditiveCoupling, AffineCoupling
from skgradood.models.glow.invertible_conv import (
    InvertibleConv,
    LUInvertibleConv,
    PlainInvertibleConv,
)
from skgradood.models.glow.level import FlowStep, Level
from skgradood.models.glow.prior import ClassPrior, ConditionalPrior, StandardPrior, TopPrior

# Factors above e multiply over the steps: with a bound of 2, single batches exploded in training.
_SCALE_BOUND = 1.0

# From a function that makes a network with so many outputs for every channel that is changed.
_COUPLINGS: dict[str, Callable[[Callable[[int], nn.Module]], AffineCoupling | AdditiveCoupling]] = {
    "affine": lambda network: AffineCoupling(network(2), _SCALE_BOUND),
    "additive": lambda network: AdditiveCoupling(network(1)),
}
_PERMUTATIONS: dict[str, Callable[[int], InvertibleConv]] = {
    "lu": LUInvertibleConv,
    "plain": PlainInvertibleConv,
}


class Glow(ClassConditional):
    """Glow on images of 256 grey values a channel.

    A density of continuous values bounds the log-likelihood of the discrete ones where it is
    averaged over values spread uniformly in their bins (uniform dequantisation). `elbo` draws from
    that average, and training maximises it. `log_prob` is the density at the midpoint of the bins:
    noise-free, but no bound, and larger where the density has learnt the grid of values.

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
    conditioner : {"convolutional", "dense", "local"}, default="convolutional"
        What the networks inside couplings and priors see [2]_: neighbourhoods, through
        convolutions; the whole image, through fully connected layers; or, through convolutions of
        1 x 1, one position of the squeezed image. Square patches of side ``2 ** n_levels`` are then
        independent and distributed alike, unless there are classes.
    permutation : {"lu", "plain"}, default="lu"
        How the invertible 1x1 convolutions are parametrised.
    learned_prior : bool, default=True
        Whether mean and scale of the latent variables are learnt (those of the finer scales as a
        function of the coarser ones) or standard normal.
    n_classes : int or None, default=None
        With it, the prior of the coarsest scale has one mode a class, with a mean and a scale for
        every latent variable there, learnt in any case [2]_; training takes labels, and `log_prob`
        sums over classes.

    Raises
    ------
    ValueError
        For an image size that the levels do not divide, an unknown option, or a single class.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS
       2018.
    .. [2] Schirrmeister, Zhou, Ball and Zhang, "Understanding Anomaly Detection with Deep
       Invertible Networks through Hierarchies of Distributions and Features", NeurIPS 2020.
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
        conditioner: str = "convolutional",
        permutation: str = "lu",
        learned_prior: bool = True,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = check_image_shape(input_shape, smallest=2)
        _check_levels(self.input_shape, n_levels)
        if n_classes is not None and n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, or None; got {n_classes}")
        self.n_levels = n_levels
        self.n_steps = n_steps
        self.hidden_channels = hidden_channels
        self.coupling = coupling
        self.conditioner = conditioner
        self.permutation = permutation
        self.learned_prior = learned_prior
        self.n_classes = n_classes
        make_coupling = look_up(_COUPLINGS, coupling, "coupling")
        make_permutation = look_up(_PERMUTATIONS, permutation, "permutation")
        networks = look_up(CONDITIONERS, conditioner, "conditioner")

        self.levels = nn.ModuleList()
        n_channels, height, width = self.input_shape
        for level in range(n_levels):
            n_channels, height, width = 4 * n_channels, height // 2, width // 2
            is_last = level == n_levels - 1
            network = partial(_network, networks, n_channels // 2, hidden_channels, (height, width))
            steps = [
                FlowStep(ActNorm(n_channels), make_permutation(n_channels), make_coupling(network))
                for _ in range(n_steps)
            ]
            n_channels = n_channels if is_last else n_channels // 2
            prior = self._make_prior((n_channels, height, width), networks, is_last=is_last)
            self.levels.append(Level(steps, prior, is_last=is_last))

    def _make_prior(
        self, shape: tuple[int, int, int], networks: Conditioner, *, is_last: bool
    ) -> StandardPrior:
        if is_last and self.n_classes is not None:
            return ClassPrior(shape, self.n_classes)
        if not self.learned_prior:
            return StandardPrior(shape)
        if is_last:
            return TopPrior(shape)
        return ConditionalPrior(shape, networks.last(shape[0], 2 * shape[0], shape[1:]))

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

    def elbo(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-density of images under uniform dequantisation noise, drawn once for each.

        Its mean over draws is a lower bound of the log-likelihood of the discrete image (Theis, van
        den Oord and Bethge, "A note on the evaluation of generative models", ICLR 2016).

        Parameters
        ----------
        X : Tensor of shape (n, C, H, W)
            Pixel values 0...255.
        generator : torch.Generator, optional
            Source of the noise.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        return self._contributions(self._dequantised(X, generator)).sum(dim=1)

    def training_loss(self, X: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The negative of `elbo`, (n,) nats."""
        return -self.elbo(X, generator)

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
    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw images from the model.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Source of the noise, on the model's device.
        label : int, optional
            The class, 0...n_classes - 1, to draw from; by default from all of them.

        Returns
        -------
        Tensor of shape (n, C, H, W), uint8

        Raises
        ------
        TypeError
            For a label, if the model has no classes.
        """
        *finer, top = self._levels()
        if label is None:
            latent = top.prior.sample(n, None, generator)
        else:
            latent = self._class_prior().sample(n, None, generator, label)
        y = top.decode(latent, None)
        for level in reversed(finer):
            y = level.decode(level.prior.sample(n, y, generator), y)
        return from_unit(y)

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


def _network(
    networks: Conditioner, n_in: int, n_hidden: int, size: tuple[int, int], n_per_channel: int
) -> nn.Module:
    """A network from half of the channels to numbers for each of the others."""
    return networks.network(n_in, n_hidden, n_per_channel * n_in, size)


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

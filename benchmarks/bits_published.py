"""Published bits per dimension of CIFAR-10, with the table that each was read in."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A number, what it was trained with, and where it stands."""

    model: str
    bits: str
    budget: str
    source: str


_PIXEL_CNN_PP = "Salimans et al., PixelCNN++, ICLR 2017, table 1"
_VLAE = "Chen et al., Variational Lossy Autoencoder, ICLR 2017, table of CIFAR10"
_SCORE_SDE = "Song et al., Score-based generative modeling through SDEs, ICLR 2021, table 2"
_DDPM = "Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020, table 1, appendix B"
_DDPM_BUDGET = "35.7 M parameters, 800 000 steps of 128 images, 10.6 h on a TPU v3-8"

CIFAR10 = (
    Published("normal distribution (van den Oord et al. 2016)", "4.70", "", _VLAE),
    Published("RealNVP (Dinh et al. 2017)", "3.49", "", _PIXEL_CNN_PP),
    Published(
        "Glow (Kingma and Dhariwal 2018)",
        "3.35",
        "L = 3, K = 32, on 8 GPUs (README of its code)",
        _SCORE_SDE,
    ),
    Published("diffusion, simple loss", "≤ 3.75", _DDPM_BUDGET, _DDPM),
    Published("diffusion, bound", "≤ 3.70", _DDPM_BUDGET, _DDPM),
    Published("PixelCNN (van den Oord et al. 2016)", "3.14", "", _PIXEL_CNN_PP),
    Published("VAE with inverse autoregressive flow", "≤ 3.11", "", _PIXEL_CNN_PP),
    Published("Gated PixelCNN (van den Oord et al. 2016)", "3.03", "", _PIXEL_CNN_PP),
    Published(
        "PixelCNN++",
        "2.92",
        "5 days on 8 TITAN X (README of its code)",
        _PIXEL_CNN_PP,
    ),
)


def table(published: tuple[Published, ...]) -> str:
    """As Markdown."""
    lines = ["| published | bits/dim | trained with | as given in |", "|---|---:|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in published]
    return "\n".join(lines)

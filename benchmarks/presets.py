"""Models of the benchmarks, sized for two CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from skorch.callbacks import LRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from skgradood.models import VAE, GenerativeNet, Glow


@dataclass(frozen=True)
class Preset:
    """How large images are, what is trained on them how long, and what its control differentiates.

    ``wrong_objective`` takes the place of the log-likelihood: what a detector still finds with
    its gradients does not come from the score.
    """

    image_size: dict[str, int]
    make: Callable[[int, int], GenerativeNet]
    epochs: dict[str, int]
    wrong_objective: Callable[[nn.Module, Tensor, torch.Generator], Tensor]
    description: str


def _vae(seed: int, epochs: int) -> GenerativeNet:
    return GenerativeNet(
        VAE,
        module__latent_dim=100,
        module__width=32,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=64,
        callbacks=[("schedule", LRScheduler(CosineAnnealingLR, T_max=epochs, eta_min=1e-5))],
        random_state=seed,
        verbose=1,
    )


def _glow(seed: int, epochs: int) -> GenerativeNet:
    return GenerativeNet(
        Glow,
        module__n_levels=2,
        module__n_steps=8,
        module__hidden_channels=96,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=64,
        callbacks=[("schedule", LRScheduler(CosineAnnealingLR, T_max=epochs, eta_min=1e-4))],
        random_state=seed,
        verbose=1,
    )


def _sum_of_posterior_means(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    return module.encode(X)[0].flatten(1).sum(1)


def _sum_of_latents(module: nn.Module, X: Tensor, generator: torch.Generator) -> Tensor:
    latents, _ = module.encode((X.float() + 0.5) / 256 - 0.5)
    return torch.stack([latent.flatten(1).sum(1) for latent in latents]).sum(0)


PRESETS = {
    "vae": Preset(
        {"fashion_mnist": 32, "cifar10": 32},
        _vae,
        {"fashion_mnist": 4, "cifar10": 3},
        _sum_of_posterior_means,
        "VAE of ROSE (width 32, latent 100, 256-way categorical pixels), Adam 1e-3 with cosine "
        "decay",
    ),
    "glow": Preset(
        {"fashion_mnist": 28, "cifar10": 32},
        _glow,
        {"fashion_mnist": 3, "cifar10": 8},
        _sum_of_latents,
        "Glow (L = 2, K = 8, 96 hidden channels, affine, LU), Adam 1e-3 with cosine decay",
    ),
}

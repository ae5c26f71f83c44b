"""Models of the benchmarks, sized for two CPU cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR

from skgradood.models import VAE, GenerativeNet, Glow


@dataclass(frozen=True)
class Preset:
    """How large images are, and what is trained on them."""

    image_size: int
    make: Callable[[int], GenerativeNet]
    description: str


def _vae(seed: int) -> GenerativeNet:
    epochs = 4
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


def _glow(seed: int) -> GenerativeNet:
    epochs = 3
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


PRESETS = {
    "vae": Preset(
        32,
        _vae,
        "VAE of ROSE (width 32, latent 100, 256-way categorical pixels), Adam 1e-3 with cosine "
        "decay, 4 epochs",
    ),
    "glow": Preset(
        28,
        _glow,
        "Glow (L = 2, K = 8, 96 hidden channels, affine, LU), Adam 1e-3 with cosine decay, "
        "3 epochs",
    ),
}

"""Models whose bits per dimension are measured, beside those of ``benchmarks/presets.py``."""

from __future__ import annotations

import time
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from torch.optim.lr_scheduler import CosineAnnealingLR

from skgradood.models import VAE, GaussianDiffusion, GenerativeNet, Glow, PixelCNN

SECONDS = "processor_seconds"


class ProcessorTime(Callback):
    """Writes into the history how much processor time training has taken at the end of an epoch.

    The wall clock would count what else the machine does.
    """

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Start the clock."""
        self.started_ = time.process_time()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the time since."""
        net.history.record(SECONDS, time.process_time() - self.started_)


def _in_minutes(module: type, epochs: int, lr: float, seed: int, **options: Any) -> GenerativeNet:
    """What is to be trained within some minutes: small batches, held-out loss by epoch."""
    schedule = LRScheduler(CosineAnnealingLR, T_max=epochs, eta_min=0.05 * lr)
    return GenerativeNet(
        module,
        lr=lr,
        max_epochs=epochs,
        batch_size=32,
        train_split=ValidSplit(0.02, random_state=seed),
        callbacks=[("schedule", schedule), ("time", ProcessorTime())],
        random_state=seed,
        **options,
    )


def pixel_cnn(seed: int) -> GenerativeNet:
    """A narrow PixelCNN of grey images, some ten minutes of one core for 10 000 of 28 x 28."""
    options = {"module__width": 32, "module__n_layers": 4}
    return _in_minutes(PixelCNN, epochs=4, lr=3e-3, seed=seed, **options)


def diffusion(seed: int) -> GenerativeNet:
    """Diffusion with the U-Net of the defaults, for about half as long."""
    return _in_minutes(GaussianDiffusion, epochs=4, lr=2e-3, seed=seed)


def _glow_of_digits(**options: Any) -> GenerativeNet:
    options = {"module__hidden_channels": 64, "max_epochs": 20} | options
    return GenerativeNet(Glow, module__n_steps=8, lr=2e-3, random_state=0, **options)


# For the bundled digits, 8 x 8 pixels of values 0...16; half a minute or less each.
DIGITS = {
    "VAE": GenerativeNet(VAE, module__latent_dim=16, lr=2e-3, max_epochs=40, random_state=0),
    "Glow": _glow_of_digits(),
    "Glow, dense": _glow_of_digits(module__conditioner="dense", module__hidden_channels=96),
    "Glow, local": _glow_of_digits(module__conditioner="local"),
    "PixelCNN": GenerativeNet(
        PixelCNN, module__width=32, module__n_layers=4, lr=3e-3, max_epochs=20, random_state=0
    ),
    "diffusion": GenerativeNet(
        GaussianDiffusion,
        module__width=16,
        module__n_timesteps_eval=None,
        lr=2e-3,
        max_epochs=30,
        random_state=0,
    ),
}

"""Trained on the bundled digits, every model of images knows more than two simple ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits

from skgradood.models import VAE, GaussianDiffusion, GenerativeNet, Glow, PixelCNN

NETS = {
    "vae": GenerativeNet(VAE, module__latent_dim=16, lr=2e-3, max_epochs=40, random_state=0),
    "glow": GenerativeNet(
        Glow,
        module__n_steps=8,
        module__hidden_channels=64,
        lr=2e-3,
        max_epochs=20,
        random_state=0,
    ),
    "pixel cnn": GenerativeNet(
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


@pytest.fixture(scope="module")
def digits():
    """Training and test images with their own values 0...16, as neighbours on the grid 0...255.

    Spread to 0...255 they would lie 16 apart. A histogram knows which 17 values come; to know them,
    a density would have to be zero at all others.
    """
    X = np.random.default_rng(0).permutation(load_digits().images.astype(np.uint8))
    return X[:1297], X[1297:]


def histogram_bits(train, test):
    """Independent pixels, each with the frequencies of its values, plus a little for all 256."""
    bits = 0.0
    for pixel in range(64):
        counts = np.bincount(train.reshape(-1, 64)[:, pixel], minlength=256) + 1e-2
        bits -= np.log2(counts / counts.sum())[test.reshape(-1, 64)[:, pixel]].mean()
    return bits / 64


def gaussian_bits(train, test, smallest_variance):
    """A normal density with full covariance at the midpoints of bins of width one."""
    train, test = train.reshape(-1, 64).astype(float), test.reshape(-1, 64).astype(float)
    covariance = np.cov(train.T) + smallest_variance * np.eye(64)
    return -multivariate_normal(train.mean(0), covariance).logpdf(test).mean() / np.log(2) / 64


def bits(net, test):
    """From a log-likelihood, or a lower bound of it, also where `log_prob` is noise-free."""
    X = torch.from_numpy(test)[:, None]
    module, generator = net.module_, torch.Generator().manual_seed(0)
    with torch.no_grad():
        if net.module is VAE:
            nats = module.log_prob_iw(X, generator, k=16)
        elif net.module is Glow:
            nats = -torch.stack([module.training_loss(X, generator) for _ in range(8)]).mean(0)
        else:
            nats = module.log_prob(X)
    return float(-nats.mean()) / np.log(2) / 64


def best_simple_bits(train, test):
    # A variance of 1/12 is that of values anywhere in their bin; the kindest choice is taken.
    gaussian = min(gaussian_bits(train, test, v) for v in (1 / 24, 1 / 12, 1 / 6, 1 / 2))
    return min(histogram_bits(train, test), gaussian)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_fewer_bits_than_independent_histograms_and_a_normal_distribution(name, digits):
    train, test = digits
    assert bits(NETS[name].fit(train), test) < best_simple_bits(train, test)

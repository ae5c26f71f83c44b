"""Fitted nets as bytes: portable, and the same in every process."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch.nn.utils.parametrizations import weight_norm

from skgradood.models import VAE, DiagonalGaussian, GenerativeNet, Glow


class WeightNormed(DiagonalGaussian):
    """A module that torch itself refuses to pickle."""

    def __init__(self, input_shape):
        super().__init__(input_shape)
        self.linear = weight_norm(torch.nn.Linear(3, 3))

    def log_prob(self, X):
        return super().log_prob(self.linear(X))


class CountingTransformer(TransformerMixin, BaseEstimator):
    """Score samples with a net, and count the fits of all instances."""

    n_fits = 0

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None):
        type(self).n_fits += 1
        return self

    def transform(self, X):
        return self.estimator.score_samples(X)[:, None]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, size=(70, 8, 8), dtype=np.uint8)


@pytest.fixture
def X(rng):
    return rng.normal(size=(70, 3))


def fitted(module, data, **options):
    return GenerativeNet(module, max_epochs=1, random_state=0, **options).fit(data)


@pytest.mark.parametrize("copied", [lambda net: pickle.loads(pickle.dumps(net)), copy.deepcopy])
@pytest.mark.parametrize("module", [VAE, Glow, WeightNormed])
def test_a_copy_scores_alike(module, copied, images, X):
    data = X if module is WeightNormed else images
    net = fitted(module, data)
    twin = copied(net)
    np.testing.assert_array_equal(twin.score_samples(data), net.score_samples(data))
    assert not twin.module_.training
    assert twin.get_params() == net.get_params()
    assert twin.history_ == net.history_
    assert twin.partial_fit(data).history_[-1]["epoch"] == 2


def test_loading_leaves_the_global_state_alone(images, untouched_global_state):
    pickle.loads(pickle.dumps(fitted(VAE, images)))


def test_a_copy_shares_no_memory(X):
    net = fitted(DiagonalGaussian, X)
    twin = copy.deepcopy(net)
    scores = net.score_samples(X)
    with torch.no_grad():
        twin.module_.mean.add_(1)
    np.testing.assert_array_equal(net.score_samples(X), scores)


def test_parameters_set_after_the_fit_do_not_change_what_is_loaded(images):
    net = fitted(VAE, images, module__latent_dim=4).set_params(module__latent_dim=9)
    twin = pickle.loads(pickle.dumps(net))
    assert twin.module_.latent_dim == 4
    assert twin.get_params()["module__latent_dim"] == 9


def test_the_state_holds_arrays_and_no_tensors(images):
    state = fitted(Glow, images).__getstate__()
    assert {type(array) for array in state["module_"].values()} == {np.ndarray}
    assert "net_" not in state


def test_hashes_are_stable(images):
    net = fitted(VAE, images)
    assert joblib.hash(net) == joblib.hash(net)
    assert joblib.hash(net) == joblib.hash(pickle.loads(pickle.dumps(net)))
    assert joblib.hash(net) == joblib.hash(fitted(VAE, images))
    assert joblib.hash(net) != joblib.hash(fitted(VAE, images[::-1].copy()))
    assert pickle.dumps(net) == pickle.dumps(net)


def test_another_process_computes_the_same_hash(images, tmp_path):
    net = fitted(VAE, images)
    joblib.dump(net, tmp_path / "net.joblib")
    code = "import joblib, sys; print(joblib.hash(joblib.load(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path / "net.joblib")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == joblib.hash(net)


def test_the_cache_of_a_pipeline_hits(images, tmp_path):
    net = fitted(VAE, images)
    CountingTransformer.n_fits = 0
    for _ in range(2):
        make_pipeline(
            CountingTransformer(FrozenEstimator(net)), "passthrough", memory=str(tmp_path)
        ).fit(images)
    assert CountingTransformer.n_fits == 1


def test_a_net_of_a_missing_device_loads_on_the_cpu(X, monkeypatch):
    net = fitted(DiagonalGaussian, X)
    net.set_params(device="cuda")
    stored = pickle.dumps(net)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="its module is on the CPU now"):
        twin = pickle.loads(stored)
    assert twin.score_samples(X).shape == (70,)

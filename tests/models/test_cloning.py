"""Modules that hold tensors with a history: what copies them, above the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skgradood import (
    CombinedDetector,
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
    LikelihoodRatioDetector,
    RoseDetector,
    SteinDiscrepancyDetector,
    WaicDetector,
)
from skgradood.gradients.state import isolated_rng
from skgradood.models._evaluation import log_likelihoods
from skgradood.models._fitted import fit_likelihood
from tests.gradients.modules import Keeping
from tests.gradients.simulated_device import DEVICE, simulated_device


@pytest.fixture
def X(rng):
    return rng.normal(size=(40, 3))


@pytest.fixture
def used(X):
    with isolated_rng(0):
        module = Keeping().double()
    module.log_prob(torch.as_tensor(X))
    assert not module.weight.is_leaf
    return module


ESTIMATORS = {
    "transformer": GradientNormTransformer,
    "pipeline": lambda module: make_pipeline(
        FisherPreconditioner(module, approximation="identity"), RoseDetector()
    ),
    "two": lambda module: LikelihoodRatioDetector(module, background=module),
    "list": lambda module: WaicDetector([module, module]),
    "combination": lambda module: CombinedDetector(
        [("waic", WaicDetector([module, module])), ("stein", SteinDiscrepancyDetector(module))]
    ),
}


def modules_in(value):
    if isinstance(value, (list, tuple)):
        return [module for part in value for module in modules_in(part)]
    if isinstance(value, torch.nn.Module):
        return [value]
    if hasattr(value, "get_params"):
        return modules_in(list(value.get_params(deep=False).values()))
    return []


@pytest.mark.parametrize("name", ESTIMATORS)
def test_clones_have_copies_of_modules(name, used, X):
    estimator = ESTIMATORS[name](used)
    found, copied = modules_in(estimator), modules_in(clone(estimator))
    assert len(copied) == len(found) > 0
    for module in copied:
        assert module is not used
        assert torch.equal(module.weight, used.weight)
        rows = torch.as_tensor(X)
        assert torch.equal(module.log_prob(rows), used.log_prob(rows))


def test_clones_are_as_scikit_learn_makes_them(used, X):
    transformer = GradientNormTransformer(used, layers="module").set_output(transform="pandas")
    copied = clone(transformer.fit(X))
    assert type(copied) is GradientNormTransformer
    assert not hasattr(copied, "likelihood_model_")
    assert copied.layers == "module"
    frame = copied.fit_transform(X)
    np.testing.assert_array_equal(frame.to_numpy(), transformer.transform(X).to_numpy())
    assert frame.columns.tolist() == ["Keeping"]


def test_a_net_with_a_model_to_start_from(used, X):
    net = GenerativeNet(Keeping, initial_model=used, max_epochs=1, dtype="float64", random_state=0)
    copied = clone(net)
    assert copied.initial_model is not used
    np.testing.assert_array_equal(copied.fit(X).score_samples(X), net.fit(X).score_samples(X))


def test_training_goes_on(X):
    net = GenerativeNet(Keeping, max_epochs=1, random_state=0).fit(X)
    before = net.score(X)
    net.module_.log_prob(torch.as_tensor(X, dtype=torch.float32))
    assert not net.module_.weight.is_leaf
    assert net.partial_fit(X).score(X) > before
    assert len(net.history_) == 2


def test_log_likelihoods_on_another_device(used, X, monkeypatch):
    model = fit_likelihood(used.float(), X)
    expected = log_likelihoods(model, X)
    used.log_prob(torch.as_tensor(X).float())
    with simulated_device(monkeypatch):
        values = log_likelihoods(model, X, device=DEVICE)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_input_scores_are_checked_in_float64(used, X):
    detector = SteinDiscrepancyDetector(used, grouped=True)
    assert np.isfinite(detector.fit(X.reshape(8, 5, 3)).offset_)

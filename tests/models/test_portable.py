"""Detectors and transformers as bytes and as copies, with what is shared among them."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

from skgradood import (
    CombinedDetector,
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
    LogLikelihoodDetector,
    TypicalityDetector,
    WaicDetector,
)
from skgradood.gradients.copying import copy_of
from skgradood.models import DiagonalGaussian
from skgradood.models._portable import portable
from skgradood.persistence import load, save
from tests.gradients.modules import Keeping
from tests.gradients.simulated_device import DEVICE, simulated_device


class Holding(DiagonalGaussian, BaseEstimator):
    """A module, and an estimator as well, that keeps tensors, and much else, in many places."""

    def __init__(self, input_shape=(3,)):
        super().__init__(input_shape)
        self.linear = torch.nn.Linear(3, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(3))
        self.linear.bias.data.zero_()
        self.tied = self.linear
        for name in ("one", "two", "three"):
            self.register_buffer(name, torch.ones(2, dtype=torch.bfloat16), persistent=False)
        self.base = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        self.names = {self.linear.weight: "weight", ("a", 1): torch.ones(1)}
        self.parts = [(self.linear.weight, torch.Size([2])), functools.partial(max, torch.ones(1))]
        self.parts.append(self.parts)
        self.chosen = {self.linear}
        self.forward_of_linear = self.linear.forward
        self.constants = torch.float64, torch.channels_last, torch.strided, ..., torch.device("cpu")


@pytest.fixture
def X(rng):
    return rng.normal(size=(40, 3))


@pytest.fixture
def net(X):
    return GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).fit(X)


def pickled(protocol):
    return lambda value: pickle.loads(pickle.dumps(value, protocol=protocol))


def sent_to_a_worker(value):
    wrapped = joblib.wrap_non_picklable_objects(value, keep_wrapper=False)
    return pickle.loads(pickle.dumps(wrapped))


COPIES = {
    **{f"pickle, protocol {protocol}": pickled(protocol) for protocol in (2, 3, 4, 5)},
    "worker": sent_to_a_worker,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(params=COPIES)
def copied(request):
    return COPIES[request.param]


# --- to workers ------------------------------------------------------------------------------


def own_module():
    class Local(DiagonalGaussian):  # as a class of a notebook, it cannot be imported
        pass

    return Local((3,))


def own_log_likelihood():
    return lambda module, X, generator: module.log_prob(X)


NOT_IMPORTABLE = {
    "module": lambda: LogLikelihoodDetector(own_module()),
    "class": lambda: LogLikelihoodDetector(
        GenerativeNet(type(own_module()), max_epochs=1, random_state=0)
    ),
    "log-likelihood": lambda: LogLikelihoodDetector(
        DiagonalGaussian((3,)), log_likelihood=own_log_likelihood()
    ),
    "layers": lambda: GradientNormTransformer(
        DiagonalGaussian((3,)), layers=lambda name, _: name[0]
    ),
    "member": lambda: CombinedDetector(
        [("own", LogLikelihoodDetector(own_module()))], random_state=0
    ),
}


@pytest.mark.parametrize("case", NOT_IMPORTABLE)
@pytest.mark.parametrize("copied", [sent_to_a_worker, copy.deepcopy])
def test_what_cannot_be_imported_is_sent_and_copied(case, copied, X):
    estimator = NOT_IMPORTABLE[case]().fit(X)
    twin = copied(estimator)
    method = "score_samples" if hasattr(estimator, "score_samples") else "transform"
    np.testing.assert_array_equal(getattr(twin, method)(X), getattr(estimator, method)(X))


NOTEBOOK = """
import numpy as np, torch
from sklearn.model_selection import cross_val_score
from skgradood import CombinedDetector, GenerativeNet, LogLikelihoodDetector, make_detector
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.models import DiagonalGaussian

class Mine(DiagonalGaussian):
    pass

X = np.random.default_rng(0).normal(size=(100, 3)) * np.repeat([1, 3], [80, 20])[:, None]
y = np.repeat([1, -1], [80, 20])
net = GenerativeNet(Mine, max_epochs=1, random_state=0)
mine = lambda module, X, generator: module.log_prob(X)
detector = LogLikelihoodDetector(net, log_likelihood=mine)
for candidate in (detector, make_detector(Mine((3,)), random_state=0)):
    scores = cross_val_score(
        candidate, X, y, cv=InlierKFold(2), scoring=outlier_scorer(), n_jobs=2, error_score="raise"
    )
    assert scores.min() > 0.5
members = [("net", detector), ("module", LogLikelihoodDetector(Mine((3,))))]
CombinedDetector(members, n_jobs=2, random_state=0).fit(X).score_samples(X)
"""


@pytest.mark.slow
def test_classes_and_lambdas_of_a_notebook_reach_the_workers():
    subprocess.run([sys.executable, "-c", NOTEBOOK], check=True)


# --- what is shared --------------------------------------------------------------------------


def test_the_module_of_a_model_stays_the_estimators_own(net, X, copied):
    for estimator in (DiagonalGaussian((3,)), net, FrozenEstimator(net)):
        twin = copied(TypicalityDetector(estimator).fit(X))
        model = twin.likelihood_model_
        assert model.module is getattr(model.estimator, "module_", model.estimator)
    assert twin.estimator.estimator is model.estimator
    first, second = copied(WaicDetector([net, net]).fit(X)).likelihood_models_
    assert first.module is first.estimator.module_ is not second.module


def combination(net, n_members):
    members = [(str(i), LogLikelihoodDetector(FrozenEstimator(net))) for i in range(n_members)]
    return CombinedDetector(members, random_state=0)


def test_members_around_one_net_stay_around_one(net, X, copied):
    twin = copied(combination(net, 4).fit(X))
    nets = [member.likelihood_model_.estimator for member in twin.detectors_]
    nets += [member.estimator.estimator for _, member in twin.detectors]
    assert all(one is nets[0] is not net for one in nets)


def test_one_net_takes_the_bytes_of_one():
    X = np.random.default_rng(0).normal(size=(20, 3000))
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0).fit(X)
    one, four = (len(pickle.dumps(combination(net, n).fit(X))) for n in (1, 4))
    assert four < 1.5 * one


def test_detectors_around_one_module_stay_around_one(X, copied):
    module = DiagonalGaussian((3,))
    one, other = copied([LogLikelihoodDetector(module).fit(X), TypicalityDetector(module).fit(X)])
    assert one.estimator is other.estimator is other.likelihood_model_.module is not module


def test_what_a_model_was_before_its_net_went_on_training(net, X, copied):
    detector = LogLikelihoodDetector(FrozenEstimator(net)).fit(X)
    scores = detector.score_samples(X)
    net.partial_fit(X + 5)
    twin = copied(detector)
    np.testing.assert_array_equal(twin.score_samples(X), scores)
    net_scores = twin.estimator.estimator.score_samples(X)
    np.testing.assert_array_equal(net_scores, net.score_samples(X))
    assert not np.array_equal(net_scores, scores)


def test_a_shallow_copy_shares_all(net, X):
    for estimator in (net, LogLikelihoodDetector(FrozenEstimator(net)).fit(X)):
        twin = copy.copy(estimator)
        assert vars(twin).keys() == vars(estimator).keys()
        assert all(value is vars(estimator)[name] for name, value in vars(twin).items())
        twin.set_params(random_state=7)
        assert estimator.random_state != 7


def test_a_deep_copy_shares_no_memory(X):
    module = DiagonalGaussian((3,))
    detector = LogLikelihoodDetector(module).fit(X)
    scores = detector.score_samples(X)
    twin = copy.deepcopy(detector)
    with torch.no_grad():
        module.mean.add_(1)
    np.testing.assert_array_equal(twin.score_samples(X), scores)


def test_what_modules_keep_of_their_last_pass_is_copied_as_values(X, copied):
    module = Keeping().double()
    module.log_prob(torch.as_tensor(X))
    assert not module.weight.is_leaf
    detector = LogLikelihoodDetector(module).fit(X)
    twin = copied(detector)
    assert joblib.hash(twin) == joblib.hash(detector)
    np.testing.assert_array_equal(twin.score_samples(X), detector.score_samples(X))


def test_a_module_stays_as_it_was_made(X, copied):
    module = Holding()
    twin = copied(GradientNormTransformer(module).fit(X)).estimator
    assert twin.tied is twin.linear
    assert twin.forward_of_linear.__self__ is twin.linear
    assert twin.parts[0][0] is twin.linear.weight
    assert twin.parts[2] is twin.parts
    assert next(iter(twin.names)) is twin.linear.weight
    assert twin.chosen == {twin.linear}
    assert twin.constants == module.constants
    assert twin._non_persistent_buffers_set == {"one", "two", "three"}
    assert twin.one.dtype == torch.bfloat16
    assert torch.equal(twin.base.scale, module.base.scale)


# --- hashes and devices ----------------------------------------------------------------------


def holding():
    module = Holding()
    del module.names, module.chosen  # tensors and modules as keys hash by their addresses
    X = np.random.default_rng(0).normal(size=(40, 3))
    return FisherPreconditioner(module, approximation=["diagonal", "ekfac"], random_state=0).fit(X)


def test_copies_have_the_same_hash(copied):
    transformer = holding()
    assert joblib.hash(copied(transformer)) == joblib.hash(transformer) == joblib.hash(holding())
    other = copy.deepcopy(transformer)
    with torch.no_grad():
        other.estimator.base.loc.add_(1)
    assert joblib.hash(other) != joblib.hash(transformer)


def test_modules_and_their_copies_have_the_same_hash():
    module = holding().estimator
    assert joblib.hash(portable(copy_of(module))) == joblib.hash(portable(module))


def test_modules_that_run_in_another_order_have_another_hash():
    def in_order(*names):
        layers = torch.nn.ModuleDict({"one": torch.nn.ReLU(), "two": torch.nn.Tanh()})
        return torch.nn.ModuleDict({name: layers[name] for name in names})

    first, second = in_order("one", "two"), in_order("two", "one")
    assert joblib.hash(portable(first)) == joblib.hash(portable(copy.deepcopy(first)))
    assert joblib.hash(portable(first)) != joblib.hash(portable(second))


def test_another_process_computes_the_same_hash():
    code = "import joblib; from tests.models.test_portable import holding as h"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; print(joblib.hash(h()))"],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == joblib.hash(holding())


def test_pickles_of_one_device_load_without_it(X, monkeypatch):
    here = LogLikelihoodDetector(DiagonalGaussian((3,)), random_state=0).fit(X)
    with simulated_device(monkeypatch):
        there = copy.deepcopy(here)
        there.estimator.to(DEVICE)
        assert copy.deepcopy(there).estimator.mean.device == DEVICE
        stored, hashed = pickle.dumps(there), joblib.hash(there)
    loaded = pickle.loads(stored)
    assert loaded.estimator.mean.device == torch.device("cpu")
    np.testing.assert_array_equal(loaded.score_samples(X), here.score_samples(X))
    assert hashed == joblib.hash(here)


def test_files_keep_what_is_shared(net, X, tmp_path):
    save(combination(net, 2).fit(X), tmp_path / "detector.skg")
    one, other = load(tmp_path / "detector.skg").detectors_
    assert one.likelihood_model_.module is other.likelihood_model_.estimator.module_

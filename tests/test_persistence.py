"""Saved detectors: the same scores after loading, and clear refusals when saving."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import SGDOneClassSVM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.baselines import baseline_detectors
from skgradood.datasets import load_digits_ood
from skgradood.detectors import ChiSquareJointDensity, ConformalDetector
from skgradood.features import GradientNormTransformer
from skgradood.models import (
    VAE,
    DiagonalGaussian,
    GenerativeNet,
    Glow,
    LinearFlow,
    NeuralSplineFlow,
)
from skgradood.persistence import load, save


class ShiftedGaussian(torch.nn.Module):
    """A module of a user's, which keeps its argument as scikit-learn's estimators do."""

    input_kind = "continuous"

    def __init__(self, input_shape, shift=0.0):
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.shift = shift
        self.mean = torch.nn.Parameter(torch.zeros(self.input_shape))

    def log_prob(self, X):
        return -0.5 * ((X - self.mean - self.shift) ** 2).sum(dim=1)


class ForgetfulGaussian(ShiftedGaussian):
    def __init__(self, input_shape, width=3):
        super().__init__(input_shape)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 4)) @ rng.normal(size=(4, 4))


@pytest.fixture(scope="module")
def digits():
    return load_digits_ood(random_state=0)


def round_trip(detector, tmp_path, **options):
    save(detector, tmp_path / "detector.skg")
    return load(tmp_path / "detector.skg", **options)


# --- round trips -----------------------------------------------------------------------------


DENSITIES = {
    f"{marginal}, {dependence}, {tail}": ChiSquareJointDensity(
        marginal=marginal, dependence=dependence, tail=tail
    )
    for marginal in ("normal", "lognormal", "chi2")
    for dependence in ("gaussian", "independent")
    for tail in ("density", "two-sided")
}
DETECTORS = DENSITIES | {
    "conformal": ConformalDetector(ChiSquareJointDensity(), alpha=0.2, random_state=0),
    "svm": make_pipeline(StandardScaler(), OneClassSVM(nu=0.2)),
    "columns": make_pipeline(
        ColumnTransformer([("a", RobustScaler(), [0, 2]), ("b", "passthrough", slice(3, 4))]),
        FunctionTransformer(np.exp),
        ChiSquareJointDensity(marginal="lognormal"),
    ),
}


@pytest.mark.parametrize("case", DETECTORS)
def test_scores_are_equal_bit_for_bit(case, rows, tmp_path):
    X = np.exp(rows) if "lognormal" in case or "chi2" in case else rows
    detector = DETECTORS[case].fit(X[:60])
    loaded = round_trip(detector, tmp_path)
    for method in ("score_samples", "predict"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(detector, method)(X))
    assert repr(loaded) == repr(detector)


NETS = {
    "gaussian": lambda: GenerativeNet(DiagonalGaussian),
    "float64": lambda: GenerativeNet(DiagonalGaussian, dtype="float64", optimizer="sgd"),
    "optimizer class": lambda: GenerativeNet(DiagonalGaussian, optimizer=torch.optim.AdamW),
    "linear flow": lambda: GenerativeNet(LinearFlow),
    "spline flow": lambda: GenerativeNet(NeuralSplineFlow, module__n_layers=1, module__n_bins=4),
    "vae": lambda: GenerativeNet(VAE, module__latent_dim=3, module__width=4),
    "glow": lambda: GenerativeNet(
        Glow, module__n_levels=2, module__n_steps=1, module__hidden_channels=4
    ),
    "glow, dense": lambda: GenerativeNet(
        Glow, module__conditioner="dense", module__n_steps=1, module__hidden_channels=4
    ),
}


@pytest.mark.parametrize("case", NETS)
def test_nets(case, rows, digits, tmp_path):
    X = digits.train[:40] if case.startswith(("vae", "glow")) else rows
    net = NETS[case]().set_params(max_epochs=1, random_state=0).fit(X)
    loaded = round_trip(net, tmp_path)
    np.testing.assert_array_equal(loaded.score_samples(X), net.score_samples(X))
    np.testing.assert_array_equal(loaded.sample(3, random_state=0), net.sample(3, random_state=0))
    assert loaded.history_ == net.history_
    assert loaded.get_params() == net.get_params()
    loaded.partial_fit(X)


@pytest.fixture(scope="module")
def full_detector(digits):
    net = GenerativeNet(VAE, module__latent_dim=3, module__width=4, max_epochs=1, random_state=0)
    features = GradientNormTransformer(
        FrozenEstimator(net.fit(digits.train[:100])), output="log", log_likelihood_column=True
    )
    detector = make_pipeline(features, ChiSquareJointDensity()).fit(digits.reference[:80])
    return ConformalDetector(detector, calibration="prefit").fit(digits.calibration[:60])


def test_from_images_to_verdict(full_detector, digits, tmp_path, untouched_global_state):
    loaded = round_trip(full_detector, tmp_path)
    for X in (digits.test[:30], digits.ood["noise"][:10]):
        np.testing.assert_array_equal(loaded.score_samples(X), full_detector.score_samples(X))
        np.testing.assert_array_equal(loaded.p_values(X), full_detector.p_values(X))


def test_shared_objects_stay_shared_and_are_stored_once(full_detector, tmp_path):
    loaded = round_trip(full_detector, tmp_path)
    assert loaded.detector is loaded.detector_
    weights = full_detector.detector[0].estimator.estimator.module_.state_dict().values()
    n_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    assert (tmp_path / "detector.skg").stat().st_size < 1.2 * n_bytes + 60_000


NAMES = ["a__identity", "a__ekfac", "b__ekfac", "log_likelihood"]


def test_baselines(rows, tmp_path):
    detectors = baseline_detectors(NAMES, random_state=0)
    for detector in detectors.values():
        loaded = round_trip(detector.fit(rows), tmp_path)
        np.testing.assert_array_equal(loaded.score_samples(rows), detector.score_samples(rows))


# --- modules of the user ---------------------------------------------------------------------


@pytest.mark.parametrize("bare", [False, True])
def test_own_modules_are_named_when_loading(rows, tmp_path, bare):
    net = GenerativeNet(ShiftedGaussian, module__shift=0.5, max_epochs=1, random_state=0).fit(rows)
    estimator = net.module_ if bare else FrozenEstimator(net)
    detector = make_pipeline(GradientNormTransformer(estimator), ChiSquareJointDensity())
    detector.set_params(chisquarejointdensity__marginal="lognormal").fit(rows)
    loaded = round_trip(detector, tmp_path, modules=[ShiftedGaussian])
    np.testing.assert_array_equal(loaded.score_samples(rows), detector.score_samples(rows))
    with pytest.raises(ValueError, match=r"ShiftedGaussian' is not known.*modules=\["):
        load(tmp_path / "detector.skg")


def test_a_module_that_cannot_be_rebuilt(rows, tmp_path):
    transformer = GradientNormTransformer(ForgetfulGaussian((4,))).fit(rows)
    with pytest.raises(TypeError, match=r"ForgetfulGaussian cannot .* are missing: width"):
        save(transformer, tmp_path / "detector.skg")


# --- saving ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detector", "complaint"),
    [
        (SGDOneClassSVM(random_state=0), "SGDOneClassSVM cannot .* joblib"),
        (FunctionTransformer(lambda X: X), "lambda"),
        (StandardScaler, "expects an estimator"),
        ({"a": 1}, "expects an estimator"),
    ],
)
def test_what_cannot_be_saved_is_named(detector, complaint, rows, tmp_path):
    if hasattr(detector, "fit") and not isinstance(detector, type):
        detector.fit(rows)
    with pytest.raises(TypeError, match=complaint):
        save(detector, tmp_path / "detector.skg")
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_the_former_file(rows, tmp_path, monkeypatch):
    path = tmp_path / "detector.skg"
    detector = ChiSquareJointDensity().fit(rows)
    save(detector, path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        save(ChiSquareJointDensity().fit(rows[:40]), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["detector.skg"]


def test_a_cache_is_not_saved(rows, tmp_path):
    detector = make_pipeline(
        StandardScaler(), ChiSquareJointDensity(), memory=str(tmp_path / "cache")
    ).fit(rows)
    assert round_trip(detector, tmp_path).memory is None
    assert detector.memory == str(tmp_path / "cache")


def test_manifest_says_who_wrote_it(rows, tmp_path):
    save(ChiSquareJointDensity().fit(rows), tmp_path / "detector.skg")
    with zipfile.ZipFile(tmp_path / "detector.skg") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["version"] == 1
    written, running = manifest["packages"]["torch"], torch.__version__  # one may name the build
    assert written.partition("+")[0] == running.partition("+")[0]
    assert manifest["created"].endswith("+00:00")

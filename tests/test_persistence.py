"""Saved detectors: the same scores after loading, and no trust in what a file says."""

import io
import json
import os
import pickle
import zipfile

import joblib
import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler
from sklearn.svm import OneClassSVM

from skgradood.baselines import baseline_detectors
from skgradood.datasets import load_digits_ood
from skgradood.detectors import ChiSquareJointDensity, ConformalDetector
from skgradood.features import GradientNormTransformer
from skgradood.models import VAE, DiagonalGaussian, GenerativeNet, Glow
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
    "vae": lambda: GenerativeNet(VAE, module__latent_dim=3, module__width=4),
    "glow": lambda: GenerativeNet(
        Glow, module__n_levels=2, module__n_steps=1, module__hidden_channels=4
    ),
}


@pytest.mark.parametrize("case", NETS)
def test_nets(case, rows, digits, tmp_path):
    X = digits.train[:40] if case in ("vae", "glow") else rows
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


def test_baselines_but_the_forest(rows, tmp_path):
    detectors = baseline_detectors([*"abc", "log_likelihood"], random_state=0)
    for name, detector in detectors.items():
        detector.fit(rows)
        if name == "isolation forest":
            with pytest.raises(TypeError, match=r"IsolationForest cannot .* joblib"):
                save(detector, tmp_path / "forest.skg")
            continue
        loaded = round_trip(detector, tmp_path)
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
        (IsolationForest(n_estimators=2, random_state=0), "IsolationForest"),
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
    assert manifest["packages"]["torch"] == torch.__version__
    assert manifest["created"].endswith("+00:00")


# --- files not to be trusted -----------------------------------------------------------------


def rebuilt(path, change, *, compression=zipfile.ZIP_STORED):
    """Write the archive again with ``change(members)``, names to bytes, applied."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_manifest(**fields):
    def change(members):
        manifest = json.loads(members["manifest.json"]) | fields
        members["manifest.json"] = json.dumps(manifest).encode()

    return change


def with_root(root):
    return with_manifest(root=root)


def obj(name, state):
    return {"object": {"class": name, "number": 0, "state": {"dict": state}}}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


class Boom:
    def __reduce__(self):
        return (os._exit, (66,))


def deep(depth):
    return lambda members: members.update(
        {"manifest.json": b'{"root": ' + b"[" * depth + b"]" * depth + b"}"}
    )


def shared(value):
    return lambda members: members.update(value)


DENSITY = "skgradood.detectors.ChiSquareJointDensity"
HOSTILE = {
    "unknown class": (with_root(obj("os.system", [])), "'os.system' is not known"),
    "class by import": (with_root({"class": "subprocess.Popen"}), "not known"),
    "class not a string": (with_root(obj(["a"], [])), "not known"),
    "unknown function": (with_root({"function": "os.system"}), "'os.system' is not known"),
    "an optimizer as estimator": (with_root(obj("torch.optim.Adam", [])), "not an estimator"),
    "no estimator": (with_root([1, 2]), "holds no estimator"),
    "unknown node": (with_root({"pickle": "gASV"}), "no kind of node called 'pickle'"),
    "two kinds": (with_root({"list": [], "dict": []}), "one key"),
    "forward reference": (with_root({"ref": 7}), "reference to object 7"),
    "contains itself": (with_root(obj(DENSITY, [["detector", {"ref": 0}]])), "reference"),
    "dunder attribute": (with_root(obj(DENSITY, [["__class__", 1]])), "set of attributes"),
    "unhashable key": (with_root(obj(DENSITY, [[[1], 1]])), "cannot be loaded"),
    "missing parts": (with_root({"object": {"class": DENSITY}}), "cannot be loaded"),
    "missing array": (with_root({"array": 999}), r"does not hold: arrays/999\.npy"),
    "path as array": (with_root({"array": "../../etc/passwd"}), "not the number of an array"),
    "object dtype": (with_root({"dtype": "O"}), "not a dtype"),
    "no torch dtype": (with_root({"torch_dtype": "load"}), "not a dtype of torch"),
    "deep nesting": (deep(100_000), "damaged manifest|nested"),
    "manifest no JSON": (shared({"manifest.json": b"\x80\x04K\x01."}), "damaged manifest"),
    "manifest a list": (shared({"manifest.json": b"[]"}), "not a JSON object"),
    "other format": (with_manifest(format="another"), "not a saved detector"),
    "newer version": (with_manifest(version=99), "version 99 .* update"),
    "path traversal": (shared({"../evil.npy": b""}), r"it holds '\.\./evil\.npy'"),
    "further file": (shared({"code.py": b"import os"}), "it holds 'code.py'"),
    "pickled array": (
        shared({f"arrays/{i}.npy": npy(np.array([Boom()], dtype=object)) for i in range(4)}),
        "dtype object",
    ),
    "truncated array": (
        shared({f"arrays/{i}.npy": npy(np.zeros(50))[:-8] for i in range(4)}),
        "truncated or damaged",
    ),
    "cached pipeline": (
        with_root(obj("sklearn.pipeline.Pipeline", [["memory", "/tmp"], ["steps", []]])),
        "no cache",
    ),
    "svm with missing vectors": (
        with_root(
            obj("sklearn.svm.OneClassSVM", [["support_vectors_", {"strings": {"items": ["a"] * 4,
                "shape": [2, 2]}}]])
        ),
        "2 support vectors",
    ),
}  # fmt: skip


@pytest.fixture
def saved(rows, tmp_path):
    path = tmp_path / "detector.skg"
    save(ChiSquareJointDensity().fit(rows), path)
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case, saved):
    change, complaint = HOSTILE[case]
    rebuilt(saved, change)
    with pytest.raises(ValueError, match=rf"(?s)detector\.skg.*({complaint})"):
        load(saved)


def test_compression_is_refused(saved):
    rebuilt(saved, lambda members: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed or encrypted"):
        load(saved)


def test_nested_nodes_do_not_exhaust_the_stack(saved):
    root = []
    for _ in range(900):
        root = [root]
    rebuilt(saved, with_root({"tuple": root}))
    with pytest.raises(ValueError, match="detector"):
        load(saved)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(saved, keep):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match="truncated"):
        load(saved)


def test_every_flipped_byte_is_harmless(saved, rows):
    """Damage is refused, or it is in a place where it does not matter; nothing else happens."""
    whole = saved.read_bytes()
    expected = load(saved).score_samples(rows)
    for position in range(0, len(whole), 23):
        content = bytearray(whole)
        content[position] ^= 0x55
        saved.write_bytes(content)
        try:
            loaded = load(saved)
        except ValueError:
            continue
        np.testing.assert_array_equal(loaded.score_samples(rows), expected)


@pytest.mark.parametrize("dump", [pickle.dump, joblib.dump, torch.save])
def test_pickles_are_not_opened(dump, tmp_path):
    path = tmp_path / "pickle.skg"
    with path.open("wb") as stream:
        dump(Boom(), stream)
    with pytest.raises(ValueError, match="not a saved detector"):
        load(path)


def test_module_arguments_that_do_not_fit_the_weights(rows, tmp_path):
    path = tmp_path / "detector.skg"
    save(GenerativeNet(DiagonalGaussian, max_epochs=1).fit(rows), path)
    rebuilt(path, lambda members: members.update({"arrays/0.npy": npy(np.zeros(9, np.float32))}))
    with pytest.raises(ValueError, match="size mismatch"):
        load(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.skg")


def test_another_scikit_learn_is_announced(saved):
    rebuilt(saved, with_manifest(packages={"scikit-learn": "0.1"}))
    with pytest.warns(UserWarning, match=r"saved with scikit-learn 0\.1"):
        load(saved)

"""Files that claim to be saved detectors: refused with a reason, and nothing from them runs."""

import io
import itertools
import json
import os
import pickle
import zipfile

import joblib
import numpy as np
import pytest
import torch

from skgradood.detectors import ChiSquareJointDensity
from skgradood.models import DiagonalGaussian, GenerativeNet
from skgradood.persistence import load, save


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 4)) @ rng.normal(size=(4, 4))


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
    flips = itertools.product(range(len(whole)), (0x55, 0x80))
    for position, flip in flips:
        content = bytearray(whole)
        content[position] ^= flip
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

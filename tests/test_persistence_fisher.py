"""Saved Fisher matrices: the same statistics after loading, and refusals of what does not fit."""

import json
import zipfile

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skgradood import FisherPreconditioner
from skgradood.detectors import ChiSquareJointDensity
from skgradood.fisher import APPROXIMATIONS
from skgradood.fisher.halves import Halves
from skgradood.models import VAE, DiagonalGaussian, GenerativeNet
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.test_persistence_hostile import rebuilt

KINDS = tuple(APPROXIMATIONS)
FOR_LARGE = tuple(kind for kind in KINDS if kind != "block")


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(60, 4))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, size=(24, 9, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae(images):
    options = {"module__width": 4, "module__latent_dim": 3}
    return GenerativeNet(VAE, max_epochs=1, random_state=0, **options).fit(images)


def round_trip(estimator, tmp_path):
    save(estimator, tmp_path / "fitted.skg")
    return load(tmp_path / "fitted.skg")


@pytest.mark.parametrize("cross_fit", [True, False])
@pytest.mark.parametrize("max_factor_size", [1024, 30])
def test_statistics_are_equal_bit_for_bit(vae, images, cross_fit, max_factor_size, tmp_path):
    transformer = FisherPreconditioner(
        FrozenEstimator(vae), approximation=FOR_LARGE, cross_fit=cross_fit,
        max_factor_size=max_factor_size, sketch_size=9,
        n_fisher_samples=10, random_state=3,
    ).fit(images)  # fmt: skip
    loaded = round_trip(transformer, tmp_path)
    np.testing.assert_array_equal(loaded.transform(images), transformer.transform(images))
    np.testing.assert_array_equal(loaded.effective_dim_, transformer.effective_dim_)
    assert loaded.n_fisher_samples_ == transformer.n_fisher_samples_


def test_a_pipeline_goes_on_learning(rows, tmp_path):
    net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    pipeline = make_pipeline(
        FisherPreconditioner(net, approximation=("ekfac", "diagonal"), output="log"),
        ChiSquareJointDensity(),
    ).fit(rows)
    loaded = round_trip(pipeline, tmp_path)
    np.testing.assert_array_equal(loaded.score_samples(rows), pipeline.score_samples(rows))
    more = rows + 1.5
    pipeline[0].partial_fit(more)
    loaded[0].partial_fit(more)
    np.testing.assert_array_equal(loaded.score_samples(more), pipeline.score_samples(more))
    assert loaded[0].n_fisher_samples_ == 60


def test_samples_of_the_model(rows, tmp_path):
    net = GenerativeNet(DiagonalGaussian, max_epochs=2, random_state=0)
    transformer = FisherPreconditioner(net, approximation="block", fisher="model").fit(rows)
    loaded = round_trip(transformer, tmp_path)
    np.testing.assert_array_equal(loaded.transform(rows), transformer.transform(rows))


def test_a_half_without_rows(tmp_path):
    rows = np.zeros((6, 4))  # all equal: the other half has none
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    transformer = FisherPreconditioner(net, approximation=KINDS).fit(rows)
    assert not transformer.held_out_fisher_.complete
    loaded = round_trip(transformer, tmp_path)
    np.testing.assert_array_equal(loaded.transform(rows), transformer.transform(rows))


def nodes(tree):
    """All nodes below one, parents first."""
    yield tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    for child in children:
        yield from nodes(child)


def state_of(manifest, class_name):
    """The pairs of the first object of a class."""
    for node in nodes(manifest["root"]):
        if isinstance(node, dict) and node.get("class") == class_name and "state" in node:
            return node["state"]["dict"]
    raise AssertionError(class_name)


def set_field(class_name, name, value):
    def change(manifest):
        for pair in state_of(manifest, class_name):
            if pair[0] == name:
                pair[1] = value
                return
        state_of(manifest, class_name).append([name, value])

    return change


def drop_field(class_name, name):
    def change(manifest):
        pairs = state_of(manifest, class_name)
        pairs[:] = [pair for pair in pairs if pair[0] != name]

    return change


EKFAC, BASIS = "skgradood.fisher.kronecker.EKFAC", "skgradood.fisher.basis.KroneckerBasis"
ESTIMATE, HALVES = "skgradood.fisher.estimate.FisherEstimate", "skgradood.fisher.halves.Halves"
HOSTILE = {
    "other attribute": (set_field(EKFAC, "quadratic_form", 1), "quadratic_form"),
    "other basis": (set_field(EKFAC, "basis", {"class": EKFAC}), "EKFAC is wrong in: basis"),
    "cache": (set_field(EKFAC, "_converted", {"dict": []}), "_converted"),
    "missing sums": (drop_field(EKFAC, "sums"), "EKFAC is wrong in: sums"),
    "missing eigenvalues": (drop_field(EKFAC, "eigenvalues"), "said to be complete"),
    "sums of something": (set_field(EKFAC, "sums", {"dict": [["a", "b"]]}), "wrong in: sums"),
    "shape of text": (set_field(EKFAC, "shape", "abc"), "wrong in: shape"),
    "other shape": (set_field(EKFAC, "shape", {"tuple": [7, 7]}), "does not fit its shape"),
    "options of text": (set_field(EKFAC, "options", "fast"), "wrong in: options"),
    "modes of another size": (set_field(BASIS, "sizes", {"tuple": [9]}), "does not fit"),
    "vectors of text": (set_field(BASIS, "vectors", {"tuple": ["a"]}), "wrong in: vectors"),
    "members of something": (
        set_field(ESTIMATE, "by_parameter", {"dict": [["mean", [{"class": ESTIMATE}]]]}),
        "wrong in: by_parameter",
    ),
    "keys of text": (set_field(HALVES, "first", "abc"), "Halves is wrong in: first"),
    "seed of text": (set_field(HALVES, "seed", "abc"), "Halves is wrong in: seed"),
    "groups of text": (set_field(HALVES, "grouped", "abc"), "Halves is wrong in: grouped"),
}


def test_groups_and_files_of_before_groups_were_told_apart_from_rows(rows, tmp_path):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    groups, path = make_groups(rows, 3, random_state=0), tmp_path / "old.skg"
    transformer = FisherPreconditioner(net, grouped=True).fit(groups)
    loaded = round_trip(transformer, tmp_path)
    assert loaded.halves_.grouped
    np.testing.assert_array_equal(loaded.transform(groups), transformer.transform(groups))
    transformer.halves_ = Halves(0)  # its keys are of the bytes of the whole group
    transformer.halves_.divide(torch.as_tensor(groups, dtype=torch.float32), [None, None])
    save(transformer, path)

    def make_old(members):
        manifest = json.loads(members["manifest.json"])
        drop_field(HALVES, "grouped")(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    rebuilt(path, make_old)
    old = load(path)
    assert not old.halves_.grouped
    np.testing.assert_array_equal(old.transform(groups), transformer.transform(groups))
    np.testing.assert_array_equal(
        round_trip(old, tmp_path).transform(groups), transformer.transform(groups)
    )


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case, rows, tmp_path):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    path = tmp_path / "fitted.skg"
    save(FisherPreconditioner(net, approximation="ekfac").fit(rows), path)
    change, complaint = HOSTILE[case]

    def damage(members):
        manifest = json.loads(members["manifest.json"])
        change(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    rebuilt(path, damage)
    with pytest.raises(ValueError, match=rf"(?s)fitted\.skg.*({complaint})"):
        load(path)


def test_the_abstract_class_cannot_be_asked_for(rows, tmp_path):
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    path = tmp_path / "fitted.skg"
    save(FisherPreconditioner(net).fit(rows), path)
    with zipfile.ZipFile(path) as archive:
        assert b"skgradood.fisher.diagonal.Diagonal" in archive.read("manifest.json")

    def damage(members):
        members["manifest.json"] = members["manifest.json"].replace(
            b"skgradood.fisher.diagonal.Diagonal", b"skgradood.fisher.approximation.Approximation"
        )

    rebuilt(path, damage)
    with pytest.raises(ValueError, match="Approximation' is not known"):
        load(path)

"""Random network distillation: the score by hand, fixed targets, and what blurring is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from skgradood import ConformalDetector, RandomNetworkDistillationDetector
from skgradood.datasets import load_digits_ood, perturb
from skgradood.detectors._distillation import Distillation
from skgradood.detectors._rnd import project_randomly
from skgradood.metrics import auroc
from skgradood.model_selection import InlierKFold, outlier_scorer
from skgradood.persistence import load, save
from skgradood.utils import make_groups

SMALL = {"width": 4, "n_features": 8, "max_epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    return load_digits_ood(random_state=0)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def by_hand(weights, prefix, x):
    """A network of rows in plain NumPy."""
    numbers = sorted({int(key.split(".")[-2]) for key in weights if key.startswith(prefix)})
    for i in numbers:
        x = x @ weights[f"{prefix}.layers.{i}.weight"].T + weights[f"{prefix}.layers.{i}.bias"]
        x = x if i == numbers[-1] else leaky(x)
    return x


def test_the_score_is_the_squared_distance_to_the_first_target(rng):
    X = rng.normal(size=(60, 5)) * [1, 2, 3, 4, 5] + 7
    detector = RandomNetworkDistillationDetector(blur=None, **SMALL).fit(X)
    new = 20 * rng.normal(size=(30, 5))
    x = (new - X.mean(axis=0)) / X.std(axis=0)
    weights = detector.weights_
    difference = by_hand(weights, "predictor", x) - by_hand(weights, "targets.0", x)
    np.testing.assert_allclose(detector.score_samples(new), -(difference**2).sum(axis=1), rtol=1e-9)
    assert not any(key.startswith("targets.1") for key in weights)


@pytest.mark.parametrize("blur", ["svd", "dct", "gaussian", "random", None])
@pytest.mark.parametrize("severity", [None, 0.5, [0.25, 0.75]])
def test_every_degree_has_a_target_and_targets_stay_as_they_were_drawn(blur, severity, digits):
    X = digits.train[:60]
    options = SMALL | {"blur": blur, "severity": severity}
    once, longer = (
        RandomNetworkDistillationDetector(**options | {"max_epochs": n}).fit(X).weights_
        for n in (1, 3)
    )
    n_targets = 1 if blur is None else 1 + len(np.atleast_1d(severity))
    targets = {key.split(".")[1] for key in once if key.startswith("targets")}
    assert targets == {str(i) for i in range(n_targets)}
    for key, values in once.items():
        assert np.array_equal(values, longer[key]) == key.startswith("targets")
    scores = RandomNetworkDistillationDetector(**options).fit(X).score_samples(digits.test[:20])
    assert np.isfinite(scores).all()
    assert (scores <= 0).all()


def test_the_predictor_descends_the_objective_of_the_paper():
    """One epoch of one batch is one step of Adam along the gradient of the sum of means."""
    torch.manual_seed(0)
    networks = Distillation((3,), 2, n_features=4, width=2).double()
    sets = [np.random.default_rng(i).normal(size=(6, 3)) for i in range(2)]
    loss = sum(
        ((networks.predictor(torch.as_tensor(x)) - g(torch.as_tensor(x))) ** 2).sum(1).mean()
        for x, g in zip(sets, networks.targets, strict=True)
    )
    gradients = torch.autograd.grad(loss, list(networks.predictor.parameters()))
    # Adam's first step is lr times the sign of the gradient.
    expected = [
        p.detach() - 1e-3 * g / (g.abs() + 1e-8)
        for p, g in zip(networks.predictor.parameters(), gradients, strict=True)
    ]
    networks.learn(
        sets, torch.as_tensor, max_epochs=1, lr=1e-3, batch_size=6, generator=torch.Generator()
    )
    for p, after in zip(networks.predictor.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), after)


@pytest.fixture(scope="module")
def trained(digits):
    options = {"width": 8, "n_features": 16, "random_state": 0}
    return {
        blur: RandomNetworkDistillationDetector(blur=blur, **options).fit(digits.train)
        for blur in ("svd", None)
    }


@pytest.mark.parametrize(("blur", "foreign"), [("svd", "clouds"), (None, "noise")])
def test_inliers_score_higher_than_foreign_images(blur, foreign, trained, digits):
    detector, outliers = trained[blur], digits.ood[foreign]
    assert auroc(detector.score_samples(digits.test), detector.score_samples(outliers)) > 0.9


def test_blurred_copies_make_blurred_images_outliers(trained, digits):
    """The finding of the paper: without them, blurred images look more normal than sharp ones."""
    blurred = perturb(digits.test, "svd_blur", severity=0.75)
    found = {
        blur: auroc(detector.score_samples(digits.test), detector.score_samples(blurred))
        for blur, detector in trained.items()
    }
    assert found["svd"] > 0.85 > 0.6 > found[None]


def test_a_random_projection_keeps_a_share_of_the_rank(rng):
    images = rng.integers(100, 156, (3, 2, 12, 10), dtype=np.uint8)
    projected = project_randomly(images, 0.75, seed=0)
    assert projected.shape == images.shape
    assert projected.dtype == np.uint8
    # Columns that were not clipped lie in one subspace of three dimensions, up to rounding.
    columns = projected.astype(float).transpose(2, 0, 1, 3).reshape(12, -1)
    original = images.astype(float).transpose(2, 0, 1, 3).reshape(12, -1)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0][:, :3]
    expected = basis @ basis.T @ original
    np.testing.assert_allclose(columns, expected.clip(0, 255), atol=0.5)
    assert np.linalg.matrix_rank(expected) == 3
    np.testing.assert_array_equal(project_randomly(images, 0.0, seed=0), images)
    with pytest.raises(ValueError, match=r"severity must lie in \[0, 1\]"):
        project_randomly(images, 1.5, seed=0)


def test_only_bytes_of_images_are_blurred(digits, rng):
    for X in (rng.normal(size=(20, 3)), digits.train[:20] / 255.0):
        with pytest.raises(ValueError, match=r"blur='svd' needs images of dtype uint8.*blur=None"):
            RandomNetworkDistillationDetector().fit(X)
    fitted = RandomNetworkDistillationDetector(**SMALL).fit(digits.train[:20])
    with pytest.raises(ValueError, match="fitted on uint8 images, but X has dtype float64"):
        fitted.score_samples(digits.train[:20] / 255.0)
    with pytest.raises(ValueError, match="shape"):
        fitted.score_samples(digits.train[:20, :5])
    of_floats = RandomNetworkDistillationDetector(blur=None, **SMALL).fit(digits.train[:20] / 255.0)
    assert np.isfinite(of_floats.score_samples(digits.test[:5] / 255.0)).all()


def test_rows_of_any_dtype_are_the_same_rows(rng):
    rows = rng.integers(0, 9, size=(40, 3))
    scores = [
        RandomNetworkDistillationDetector(blur=None, **SMALL).fit(X).score_samples(X)
        for X in (rows.astype(np.uint8), rows.astype(np.float64))
    ]
    np.testing.assert_array_equal(*scores)


def test_extreme_and_constant_input_never_becomes_nan(rng, digits):
    rows = RandomNetworkDistillationDetector(blur=None, **SMALL).fit(rng.normal(size=(30, 3)))
    scores = rows.score_samples([[1e308, -1e308, 1e308], [1e200, 0, 0], [0, 0, 0]])
    assert (np.isfinite(scores) | (scores == -np.inf)).all()
    assert np.isfinite(scores[2])
    assert rows.predict([[1e200, 0, 0]]) == [-1]
    images = RandomNetworkDistillationDetector(**SMALL).fit(digits.train[:20])
    constant = np.zeros_like(digits.train[:2])
    constant[1] = 255
    assert np.isfinite(images.score_samples(constant)).all()
    on_constants = RandomNetworkDistillationDetector(**SMALL).fit(constant[:1])
    assert np.isfinite(on_constants.score_samples(digits.test[:3])).all()
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        images.score_samples(digits.train[:0])


def test_training_that_diverges_says_so(rng):
    with pytest.raises(RuntimeError, match=r"diverged in epoch .*Lower lr"):
        RandomNetworkDistillationDetector(blur=None, **SMALL | {"lr": 1e200, "max_epochs": 9}).fit(
            rng.normal(size=(200, 3))
        )


def test_seeded_without_touching_global_generators(digits, untouched_global_state):
    X = digits.train[:40]
    scores = [
        RandomNetworkDistillationDetector(**SMALL | {"random_state": seed}).fit(X).score_samples(X)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])


def test_groups_grid_search_calibration_and_files(digits, tmp_path):
    groups = make_groups(digits.test[:20], 4, random_state=0)
    detector = RandomNetworkDistillationDetector(grouped=True, **SMALL)
    detector.fit(make_groups(digits.train[:40], 4, random_state=0))
    alone = detector.set_params(grouped=False).score_samples(groups.reshape(-1, *groups.shape[2:]))
    expected = alone.reshape(-1, 4).mean(axis=1)
    detector.set_params(grouped=True)
    np.testing.assert_allclose(detector.score_samples(groups), expected, rtol=1e-6)

    X = np.concatenate([digits.train[:60], digits.ood["noise"][:20]])
    search = GridSearchCV(
        RandomNetworkDistillationDetector(**SMALL),
        {"blur": ["svd", None], "severity": [0.25, 0.5]},
        cv=InlierKFold(n_splits=2),
        scoring=outlier_scorer("roc_auc"),
        error_score="raise",
    ).fit(X, np.repeat([1, -1], [60, 20]))
    assert search.best_score_ > 0.7

    conformal = ConformalDetector(RandomNetworkDistillationDetector(**SMALL), random_state=0)
    save(conformal.fit(digits.train[:100]), tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.p_values(digits.test), conformal.p_values(digits.test))

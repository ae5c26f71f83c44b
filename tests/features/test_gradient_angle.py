"""Angles between gradients against plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch import nn

from skgradood import ChiSquareJointDensity, GenerativeNet
from skgradood.features import GradientAngleTransformer
from skgradood.models import VAE, DiagonalGaussian, RealNVP
from skgradood.persistence import load, save


def gradients(module, X):
    """One dictionary of gradients a sample."""
    found = []
    names, parameters = zip(*module.named_parameters(), strict=True)
    for x in X:
        values = torch.autograd.grad(module.log_prob(x[None]).sum(), parameters, allow_unused=True)
        zeros = [
            torch.zeros_like(p) if g is None else g for g, p in zip(values, parameters, strict=True)
        ]
        found.append(dict(zip(names, zeros, strict=True)))
    return found


def cosine(pairs):
    product = sum(float((a * b).sum()) for a, b in pairs)
    lengths = [
        sum(float(c.square().sum()) for c in side) ** 0.5 for side in zip(*pairs, strict=True)
    ]
    return product / (lengths[0] * lengths[1]) if all(lengths) else 0.0


@pytest.fixture
def rows(rng):
    return rng.normal(size=(12, 3))


@pytest.fixture
def flow():
    torch.manual_seed(0)
    return RealNVP((3,), n_layers=2, hidden=4).double()


def means_of(found):
    return {name: torch.stack([g[name] for g in found]).mean(0) for name in found[0]}


@pytest.mark.parametrize("engine", ["capture", "func", "loop"])
def test_cosines_are_those_of_plain_autograd(flow, rows, engine):
    with torch.no_grad():  # the last layers start at zero, and nothing before them has a gradient
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    new = 2 * rows[:5] + 1
    found = gradients(flow, torch.as_tensor(rows))
    means = means_of(found)
    expected = [
        [cosine([(g[name], means[name])]) for name in means]
        for g in gradients(flow, torch.as_tensor(new))
    ]
    transformer = GradientAngleTransformer(flow, engine=engine, batch_size=5).fit(rows)
    np.testing.assert_allclose(transformer.transform(new), expected, atol=1e-9)
    for name, mean in transformer.mean_gradients_.items():
        np.testing.assert_allclose(mean, means[name], atol=1e-12)


def test_modules_and_channels(rows):
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()
    module.log_prob = lambda X: -0.5 * module(X).square().sum(1)
    found = gradients(module, torch.as_tensor(rows))
    means = means_of(found)
    of_module = GradientAngleTransformer(module, layers="module").fit(rows).transform(rows)
    expected = [[cosine([(g[name], means[name]) for name in means])] for g in found]
    np.testing.assert_allclose(of_module, expected, atol=1e-10)
    of_channels = GradientAngleTransformer(module, layers="channel").fit(rows).transform(rows)
    expected = [
        [cosine([(g[name][c], means[name][c])]) for name in ("weight", "bias") for c in (0, 1)]
        for g in found
    ]
    np.testing.assert_allclose(of_channels, expected, atol=1e-10)


def test_a_group_is_judged_by_its_summed_gradient(rows):
    module = DiagonalGaussian((3,)).double()
    groups = rows.reshape(4, 3, 3)
    found = gradients(module, torch.as_tensor(rows))
    means = means_of(found)
    sums = [means_of(found[3 * k : 3 * k + 3]) for k in range(4)]
    expected = [[cosine([(s[name], means[name])]) for name in means] for s in sums]
    transformer = GradientAngleTransformer(module, grouped=True, log_likelihood_column=True)
    table = transformer.fit(groups).transform(groups)
    np.testing.assert_allclose(table[:, :-1], expected, atol=1e-10)
    assert transformer.get_feature_names_out().tolist() == ["mean", "log_scale", "log_likelihood"]


def test_samples_like_those_of_training_pull_the_same_way(rng):
    """Training rows lie on one side of the model's mean, foreign ones on the other."""
    module = DiagonalGaussian((5,)).double()
    X = rng.normal(size=(100, 5)) + 1
    transformer = GradientAngleTransformer(module).fit(X)
    like, unlike = transformer.transform(X)[:, 0], transformer.transform(X - 2)[:, 0]
    assert np.median(like) > 0.5
    assert np.median(unlike) < -0.5
    detector = make_pipeline(transformer, ChiSquareJointDensity(tail="lower")).fit(X)
    assert detector.score_samples(X).mean() > detector.score_samples(X - 2).mean()


def test_no_gradient_has_no_angle_and_extremes_stay_in_range(rows):
    module = nn.Linear(3, 3).double()
    module.log_prob = lambda X: -(X - module.bias).square().sum(1)
    table = GradientAngleTransformer(module).fit(rows).transform([[1e100] * 3, [0.0] * 3])
    assert (table[:, 0] == 0).all()
    assert (np.abs(table) <= 1).all()


def test_saved_with_images(rng, tmp_path):
    images = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    net = GenerativeNet(VAE, module__width=4, module__latent_dim=2, max_epochs=1, random_state=0)
    transformer = GradientAngleTransformer(FrozenEstimator(net.fit(images))).fit(images)
    detector = make_pipeline(transformer, ChiSquareJointDensity()).fit(images)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.score_samples(images), detector.score_samples(images))

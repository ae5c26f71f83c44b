"""Log-likelihoods as features: the values of the gradient transformer's column, and their parts."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch import nn

from skgradood import GenerativeNet, GradientNormTransformer
from skgradood.detectors import ChiSquareJointDensity, CombinedDetector
from skgradood.features import LogLikelihoodTransformer
from skgradood.models import DiagonalGaussian, Glow, RealNVP
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.gradients.test_side_effects import assert_same, snapshot


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 2.0, 0.5] + [0.0, 1.0, -1.0]


@pytest.fixture(scope="module")
def net(rows):
    return GenerativeNet(DiagonalGaussian, max_epochs=3, dtype="float64", random_state=0).fit(rows)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (12, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def glow():
    torch.manual_seed(0)
    module = Glow((1, 8, 8), n_levels=3, n_steps=1, hidden_channels=4)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    return module.double()


@pytest.fixture(scope="module")
def flow(rows):
    return GenerativeNet(RealNVP, max_epochs=2, dtype="float64", random_state=0).fit(rows).module_


class Dequantised(nn.Module):
    """A log-likelihood that draws noise, from its generator and from torch's."""

    input_kind = "continuous"

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def log_prob(self, X, generator=None):
        noise = torch.rand(X.shape, generator=generator, dtype=X.dtype) + torch.randn_like(X)
        return -0.5 * ((X + noise - self.mean) ** 2).sum(dim=1)


def test_the_column_is_the_closed_form_of_a_gaussian(net, rows):
    transformer = LogLikelihoodTransformer(FrozenEstimator(net))
    mean, scale = net.module_.mean.detach().numpy(), net.module_.log_scale.detach().exp().numpy()
    expected = norm.logpdf(rows, mean, scale).sum(axis=1)
    np.testing.assert_allclose(transformer.fit_transform(rows)[:, 0], expected, rtol=1e-12)
    assert transformer.get_feature_names_out().tolist() == ["log_likelihood"]


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("grouped", [False, True])
def test_noise_is_that_of_the_gradient_transformer(seed, grouped, rows):
    X = make_groups(rows, 5, random_state=0) if grouped else rows
    options = {"random_state": seed, "grouped": grouped}
    expected = GradientNormTransformer(
        Dequantised(), log_likelihood_column=True, engine="loop", **options
    ).fit_transform(X)[:, -1]
    for batch_size in (1, 7, "auto"):
        transformer = LogLikelihoodTransformer(Dequantised(), batch_size=batch_size, **options)
        values = transformer.fit_transform(X)
        np.testing.assert_allclose(values[:, 0], expected, rtol=1e-12)
        np.testing.assert_allclose(transformer.transform(X[::-1])[::-1], values, rtol=1e-12)
    other = LogLikelihoodTransformer(Dequantised(), random_state=1, grouped=grouped)
    assert not np.isclose(other.fit_transform(X)[:, 0], expected).any()


def test_contributions_of_a_glow_are_priors_and_determinants_by_scale(glow, images):
    transformer = LogLikelihoodTransformer(glow, contributions=True, batch_size=5)
    contributions = transformer.fit_transform(images)
    X = torch.as_tensor(images[:, None])
    with torch.no_grad():
        total = glow.log_prob(X).numpy()
        y = (X.double() + 0.5) / 256 - 0.5
        by_scale = []
        for level in glow.levels:
            y = nn.functional.pixel_unshuffle(y, 2)
            value = -torch.log(torch.tensor(256.0))
            determinants = 0
            for step in level.steps:
                y, log_determinant = step(y)
                determinants = determinants + log_determinant
            latent, rest = (y, y) if level.is_last else y.chunk(2, dim=1)
            value = latent[0].numel() * value + determinants + level.prior.log_prob(latent, rest)
            by_scale.append(value.numpy())
            y = rest
    np.testing.assert_allclose(contributions, np.column_stack(by_scale), rtol=1e-6)
    np.testing.assert_allclose(contributions.sum(axis=1), total, rtol=1e-12)
    assert transformer.get_feature_names_out().tolist() == [
        f"log_likelihood_contribution{i}" for i in range(3)
    ]


def test_contributions_of_a_realnvp_are_prior_and_log_determinant(flow, rows):
    contributions = LogLikelihoodTransformer(flow, contributions=True).fit_transform(rows)
    for row, (prior, log_determinant) in zip(torch.as_tensor(rows), contributions, strict=True):
        z = flow.encode(row[None])[0].detach().numpy()
        jacobian = torch.autograd.functional.jacobian(lambda x: flow.encode(x[None])[0][0], row)
        assert prior == pytest.approx(norm.logpdf(z).sum(), rel=1e-10)
        assert log_determinant == pytest.approx(float(torch.slogdet(jacobian)[1]), abs=1e-8)
    with torch.no_grad():
        total = flow.log_prob(torch.as_tensor(rows)).numpy()
    np.testing.assert_allclose(contributions.sum(axis=1), total, rtol=1e-12)


def test_contributions_of_a_group_are_summed(flow, rows):
    groups = make_groups(rows, 4, random_state=0)
    alone = LogLikelihoodTransformer(flow, contributions=True).fit(rows)
    grouped = LogLikelihoodTransformer(flow, contributions=True, grouped=True).fit(groups)
    expected = np.array([alone.transform(group).sum(axis=0) for group in groups])
    np.testing.assert_allclose(grouped.transform(groups), expected, rtol=1e-10)


def test_contributions_are_refused_where_there_are_none(net, rows, flow):
    with pytest.raises(TypeError, match="DiagonalGaussian has no method log_prob_contributions"):
        LogLikelihoodTransformer(FrozenEstimator(net), contributions=True).fit(rows)
    with pytest.raises(ValueError, match="parts of log_prob"):
        LogLikelihoodTransformer(flow, contributions=True, log_likelihood="encode").fit(rows)


def test_an_unfitted_net_is_cloned_and_a_module_is_left_as_it_was(rows):
    unfitted = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    transformer = LogLikelihoodTransformer(unfitted).fit(rows)
    assert not hasattr(unfitted, "module_")
    expected = clone(unfitted).fit(rows).score_samples(rows)
    np.testing.assert_array_equal(transformer.transform(rows)[:, 0], expected)
    module = DiagonalGaussian((3,)).double().train()
    before = snapshot(module)
    transformer = LogLikelihoodTransformer(module).fit(rows)
    assert transformer.likelihood_model_.module is module
    transformer.transform(rows)
    assert_same(before, snapshot(module))


@pytest.mark.parametrize("contributions", [False, True])
def test_images_pickles_and_saved_files(glow, images, contributions, tmp_path):
    net = GenerativeNet(
        Glow, module__n_steps=1, module__hidden_channels=4, max_epochs=1, random_state=0
    ).fit(images)
    transformer = LogLikelihoodTransformer(FrozenEstimator(net), contributions=contributions)
    expected = transformer.fit_transform(images)
    np.testing.assert_array_equal(transformer.transform(images[..., None]), expected)
    copy = pickle.loads(pickle.dumps(transformer))
    save(transformer, tmp_path / "features.skg")
    for loaded in (copy, load(tmp_path / "features.skg")):
        np.testing.assert_array_equal(loaded.transform(images), expected)


def test_bad_input_and_pandas(net, rows):
    with pytest.raises(NotFittedError):
        LogLikelihoodTransformer(FrozenEstimator(net)).transform(rows)
    with pytest.raises(TypeError, match="estimator must be"):
        LogLikelihoodTransformer("vae").fit(rows)
    with pytest.raises(TypeError, match="no method nothing"):
        LogLikelihoodTransformer(net.module_, log_likelihood="nothing").fit(rows)
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    transformer = LogLikelihoodTransformer(FrozenEstimator(net)).set_output(transform="pandas")
    assert transformer.fit_transform(frame).columns.tolist() == ["log_likelihood"]
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(frame[["b", "a", "c"]])


def test_typicality_is_a_member_of_a_combination(tmp_path):
    """Two-sided on the log-likelihood: too likely is as abnormal as too unlikely."""
    rng = np.random.default_rng(2)
    inliers = rng.normal(size=(600, 50))
    net = GenerativeNet(DiagonalGaussian, max_epochs=3, dtype="float64", random_state=0)
    net.fit(inliers[:100])
    typicality = make_pipeline(
        LogLikelihoodTransformer(FrozenEstimator(net)),
        ChiSquareJointDensity(marginal="normal", tail="two-sided"),
    )
    norms = make_pipeline(
        GradientNormTransformer(FrozenEstimator(net), output="log"), ChiSquareJointDensity()
    )
    detector = CombinedDetector([("typicality", typicality), ("norms", norms)], random_state=0)
    detector.fit(inliers[100:])
    extremes = np.array([np.zeros(50), np.full(50, 3.0)])
    typical = net.score_samples(inliers[100:])
    likely, unlikely = net.score_samples(extremes)
    assert unlikely < typical.min() < typical.max() < likely
    assert (detector.named_detectors_["typicality"].score_samples(extremes) < np.log(1e-3)).all()
    assert (detector.member_scores(extremes)[:, 0] < np.log(1e-2)).all()
    assert (detector.predict(extremes) == -1).all()
    save(detector, tmp_path / "combined.skg")
    loaded = load(tmp_path / "combined.skg")
    np.testing.assert_array_equal(loaded.score_samples(inliers), detector.score_samples(inliers))

"""Likelihood regret against a naive loop over samples, and against its closed form."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skgradood import GenerativeNet, LikelihoodRegretDetector
from skgradood.gradients import LogLikelihood
from skgradood.models import VAE
from skgradood.models._encoder_copies import _parts_to_copy, encoder_parameters
from skgradood.models._refinement import bounds_before_and_after, chunk_size
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.detectors.likelihoods import gaussian
from tests.gradients.test_side_effects import assert_same, snapshot


class LinearVAE(nn.Module):
    """x = W z + noise of unit variance, and an encoder that is an offset away from the best."""

    input_kind = "continuous"

    def __init__(self, offset=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(4, 2, generator=generator, dtype=torch.float64)
        precision = torch.eye(2, dtype=torch.float64) + weight.T @ weight
        self.weight = nn.Parameter(weight)
        self.gain = nn.Parameter(torch.linalg.solve(precision, weight.T))
        self.shift = nn.Parameter(torch.full((2,), offset, dtype=torch.float64))
        self.log_variance = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def encode(self, X):
        return X @ self.gain.T + self.shift, self.log_variance.expand(len(X), 2)

    def bound(self, X, mean, log_variance, noise=None):
        latent = mean if noise is None else mean + noise * (0.5 * log_variance).exp()
        residual = X - latent @ self.weight.T
        log_prob = -0.5 * (residual**2 + math.log(2 * math.pi)).sum(dim=1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return log_prob - divergence

    def log_prob(self, X):
        return self.bound(X, *self.encode(X))


def naive_regret(module, x, *, over, n_steps, lr, optimizer, noise=None):
    """One sample, its own copy of the whole model, torch's own optimizer."""
    module = copy.deepcopy(module).eval()
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adamax": torch.optim.Adamax}
    if over == "encoder":
        named = module.named_parameters()
        variables = [p for n, p in named if not n.startswith(("decoder", "wei"))]
    else:
        variables = [m.detach().clone().requires_grad_() for m in module.encode(x)]

    def bound():
        posterior = module.encode(x) if over == "encoder" else variables
        draws = [None] if noise is None else noise
        return sum(module.bound(x, *posterior, draw) for draw in draws) / len(draws)

    update = make[optimizer](variables, lr=lr)
    met = [bound().item()]
    for _ in range(n_steps):
        update.zero_grad()
        (-bound()).sum().backward()
        update.step()
        met.append(bound().item())
    return max(met) - met[0]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 1, 9, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    module = VAE((1, 9, 8), latent_dim=3, width=4).double()
    # Running moments that are not those of a new module.
    with torch.no_grad():
        module.train()
        module.training_loss(torch.randint(0, 256, (16, 1, 9, 8)))
    return module


CASES = {
    "paper": {"over": "encoder", "n_steps": 20, "lr": 1e-3, "optimizer": "adam"},
    "sgd": {"over": "encoder", "n_steps": 5, "lr": 1e-5, "optimizer": "sgd"},
    "adamax": {"over": "encoder", "n_steps": 5, "lr": 1e-3, "optimizer": "adamax"},
    "too fast": {"over": "encoder", "n_steps": 6, "lr": 0.5, "optimizer": "adam"},
    "posterior": {"over": "posterior", "n_steps": 20, "lr": 1e-2, "optimizer": "adam"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch_size", ["auto", 3])
def test_scores_are_those_of_a_naive_loop(case, batch_size, vae, images):
    options = CASES[case]
    detector = LikelihoodRegretDetector(vae, batch_size=batch_size, **options).fit(images)
    expected = [naive_regret(vae, torch.as_tensor(x[None]), **options) for x in images]
    np.testing.assert_allclose(detector.score_samples(images), -np.array(expected), rtol=1e-6)


class Spelt(VAE):
    """A VAE whose encoder has no form with weights of the samples' own."""

    def encode(self, X):
        mean, log_variance = super().encode(X)
        return mean + 0 * self.to_mean.weight.sum(), log_variance


class Reversed(VAE):
    """A VAE whose encoder's functions meet the samples in another order."""

    def encode(self, X):
        mean, log_variance = super().encode(X.flip(0))
        return mean.flip(0), log_variance.flip(0)


class Centred(VAE):
    """A VAE whose encoder mixes samples."""

    def encode(self, X):
        return super().encode(X - 0.5 * X.double().mean(0, keepdim=True))


@pytest.mark.parametrize("kind", [VAE, Spelt, Reversed, Centred])
@pytest.mark.parametrize("side", [8, 9])
def test_encoders_of_all_kinds(kind, side):
    """Where the form with weights of the samples' own does not serve, vmap does."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    module = kind((1, side, side), latent_dim=3, width=4).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    X = torch.randint(0, 256, (5, 1, side, side), generator=generator, dtype=torch.uint8).numpy()
    few = torch.as_tensor(X[:3])
    served = _parts_to_copy(module.eval(), encoder_parameters(module, few[:1]), few)
    assert (served is not None) == (kind is VAE)
    options = CASES["paper"]
    detector = LikelihoodRegretDetector(module, **options).fit(X)
    expected = [naive_regret(module, torch.as_tensor(x[None]), **options) for x in X]
    np.testing.assert_allclose(detector.score_samples(X), -np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("over", ["encoder", "posterior"])
def test_draws_belong_to_the_row(over, vae, images):
    options = {"over": over, "n_steps": 4, "lr": 1e-3, "optimizer": "adam"}
    detector = LikelihoodRegretDetector(vae, n_draws=2, **options).fit(images)
    seeds = LogLikelihood(random_state=0).row_seeds(torch.as_tensor(images))
    expected = []
    for x, seed in zip(images, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(2, 3, generator=generator, dtype=torch.float64)[:, None]
        expected.append(naive_regret(vae, torch.as_tensor(x[None]), noise=noise, **options))
    np.testing.assert_allclose(detector.score_samples(images), -np.array(expected), rtol=1e-6)
    backwards = detector.score_samples(images[::-1])[::-1]
    np.testing.assert_allclose(backwards, detector.score_samples(images), rtol=1e-9)
    other = LikelihoodRegretDetector(vae, n_draws=2, random_state=1, **options).fit(images)
    assert not np.allclose(other.score_samples(images), detector.score_samples(images))


@pytest.mark.parametrize("over", ["encoder", "posterior"])
def test_regret_of_a_linear_model_is_the_distance_to_the_best_posterior(over, rng):
    """The bound at the mean is quadratic in it: the regret is half the offset in that metric."""
    module = LinearVAE(offset=0.7)
    X = rng.normal(size=(5, 4))
    detector = LikelihoodRegretDetector(
        module, over=over, n_steps=400, lr=0.05, optimizer="adam"
    ).fit(X)
    # The log-variance, which only the divergence holds back, is at its optimum from the start.
    precision = np.eye(2) + (module.weight.T @ module.weight).detach().numpy()
    offset = np.full(2, 0.7)
    expected = 0.5 * offset @ precision @ offset
    np.testing.assert_allclose(detector.score_samples(X), -expected, rtol=1e-3)
    best = LikelihoodRegretDetector(LinearVAE(), over=over, n_steps=50, lr=1e-3).fit(X)
    np.testing.assert_allclose(best.score_samples(X), 0, atol=1e-6)


def test_what_the_encoder_has_not_learnt_is_regretted(rng):
    """An autoencoder of small rows: an encoder that is right there and saturates beyond."""

    class Saturating(LinearVAE):
        def encode(self, X):
            mean, log_variance = super().encode(X)
            return mean.clamp(-3, 3), log_variance

    X = 0.5 * rng.normal(size=(40, 4))
    detector = LikelihoodRegretDetector(Saturating(), over="posterior", n_steps=100, lr=0.1).fit(X)
    assert detector.score_samples(20 * X).mean() < detector.score_samples(X).min()
    assert (detector.predict(50 * X) == -1).mean() > 0.8


def test_the_module_is_left_as_it_was(vae, images, untouched_global_state):
    vae.train()
    vae.to_mean.weight.requires_grad_(False)
    before = snapshot(vae)
    scores = LikelihoodRegretDetector(vae, n_steps=2).fit(images).score_samples(images)
    assert_same(before, snapshot(vae))
    vae.to_mean.weight.requires_grad_(True)
    again = LikelihoodRegretDetector(vae, n_steps=2).fit(images).score_samples(images)
    np.testing.assert_array_equal(again, scores)


def test_more_steps_never_lower_the_regret(vae, images):
    scores = [
        LikelihoodRegretDetector(vae, n_steps=n, lr=0.3).fit(images).score_samples(images)
        for n in (1, 2, 8)
    ]
    assert (np.diff(scores, axis=0) <= 0).all()
    assert (scores[0] <= 0).all()


def test_groups_are_judged_by_the_mean(vae, images):
    groups = make_groups(images, 2, random_state=0)
    options = {"over": "posterior", "n_steps": 2, "lr": 0.1}
    of_groups = LikelihoodRegretDetector(vae, grouped=True, **options).fit(groups)
    of_images = LikelihoodRegretDetector(vae, **options).fit(images)
    alone = of_images.score_samples(groups.reshape(-1, 1, 9, 8)).reshape(-1, 2)
    np.testing.assert_allclose(of_groups.score_samples(groups), alone.mean(axis=1))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_threshold_is_set_on_a_few_samples(grouped, rng):
    X = rng.normal(size=(400, 4))
    X = X.reshape(200, 2, 4) if grouped else X
    module = LinearVAE(0.5)
    with torch.no_grad():  # what is regretted differs from row to row
        module.gain.mul_(0.5)
    options = {"over": "posterior", "n_steps": 3, "lr": 0.05, "grouped": grouped}
    detectors = {
        n: LikelihoodRegretDetector(module, n_threshold_samples=n, **options).fit(X)
        for n in (1, 50, None)
    }
    scores = detectors[None].score_samples(X)
    assert detectors[None].offset_ == pytest.approx(np.quantile(scores, 0.05))
    assert np.isclose(scores, detectors[1].offset_, rtol=1e-9).any()
    assert detectors[50].offset_ != detectors[None].offset_
    assert scores.min() <= detectors[50].offset_ <= np.quantile(scores, 0.2)


@pytest.mark.parametrize("over", ["encoder", "posterior"])
def test_chunks_shrink_with_the_size_of_model_and_images(over):
    sizes = {}
    for side, width in ((16, 8), (64, 8), (16, 64)):
        module = VAE((1, side, side), latent_dim=4, width=width)
        X = torch.zeros(1, 1, side, side, dtype=torch.uint8)
        sizes[side, width] = chunk_size(module, X, over, 10**6)
        # At least the logits of 256 values a pixel are kept, and the copies with their moments.
        n_bytes = 4 * 256 * side**2
        if over == "encoder":
            encoder = [module.encoder, module.to_mean, module.to_log_variance]
            n_bytes += 16 * sum(p.numel() for m in encoder for p in m.parameters())
        assert 1 <= sizes[side, width] <= 2**29 / n_bytes
        assert chunk_size(module, X, over, 3) == 3
    assert sizes[64, 8] < sizes[16, 8]
    assert sizes[16, 64] < sizes[16, 8]


def test_out_of_memory_halves_the_chunk(vae, images, monkeypatch):
    expected = LikelihoodRegretDetector(vae, n_steps=2).fit(images).score_samples(images)
    largest = []

    def scarce(module, X, **options):
        if len(X) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        largest.append(len(X))
        return bounds_before_and_after(module, X, **options)

    monkeypatch.setattr("skgradood.detectors._regret.bounds_before_and_after", scarce)
    scores = LikelihoodRegretDetector(vae, n_steps=2).fit(images).score_samples(images)
    assert max(largest) <= 2
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_only_autoencoders_are_taken(rng):
    with pytest.raises(TypeError, match=r"DiagonalGaussian has no method encode and no method"):
        LikelihoodRegretDetector(gaussian([0.0], [1.0])).fit(rng.normal(size=(9, 1)))


@pytest.mark.parametrize("over", ["encoder", "posterior"])
def test_extreme_rows_are_outliers_and_never_nan(over, rng):
    X = rng.normal(size=(20, 4))
    detector = LikelihoodRegretDetector(LinearVAE(0.1), over=over, n_steps=3).fit(X)
    extreme = np.full((3, 4), [[1e200], [-1e308], [1e30]])
    scores = detector.score_samples(extreme)
    assert (np.isfinite(scores) | (scores == -np.inf)).all()
    assert (scores[:2] == -np.inf).all()
    # Samples beside them are not touched.
    beside = detector.score_samples(np.concatenate([extreme, X]))[3:]
    np.testing.assert_allclose(beside, detector.score_samples(X), rtol=1e-9)


def test_saved_one_image_and_constant_images(images, tmp_path):
    net = GenerativeNet(VAE, module__width=4, module__latent_dim=2, max_epochs=1, random_state=0)
    detector = LikelihoodRegretDetector(FrozenEstimator(net.fit(images)), n_steps=3).fit(images)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    constant = np.stack([np.zeros((9, 8), np.uint8), np.full((9, 8), 255, np.uint8)])
    for X in (images, constant, images[:1]):
        np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
        assert np.isfinite(detector.score_samples(X)).all()
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        detector.score_samples(images[:0])

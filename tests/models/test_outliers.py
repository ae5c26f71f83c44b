"""Training with outliers: the losses, what they do to a model, and what is not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skgradood.models import VAE, DiagonalGaussian, GenerativeNet
from skgradood.models._outliers import margin_loss, softplus_loss

ONE_STEP = {
    "optimizer": "sgd",
    "lr": 1e-2,
    "max_epochs": 1,
    "batch_size": 1000,
    "dtype": "float64",
    "callbacks__gradient_clipping": None,
    "random_state": 0,
}


@pytest.fixture
def inliers(rng):
    return rng.normal(size=(400, 1))


@pytest.fixture
def outliers(rng):
    return rng.normal(loc=3, size=(300, 1))


class HasNoEnd(DiagonalGaussian):
    """Minus infinity above 100, with a derivative that is infinite as well."""

    def log_prob(self, X):
        beyond = (100 - X).relu().log().sum(dim=1)
        return super().log_prob(X.clamp(max=100)) + beyond * (1 + 1e-9 * self.mean.sum())


class HasNoGradient(DiagonalGaussian):
    """A finite density whose derivative is NaN at zero."""

    def log_prob(self, X):
        return super().log_prob(X) + (self.mean * X).abs().sqrt().sum(dim=1)


def gaussian(**options):
    return GenerativeNet(DiagonalGaussian, **(ONE_STEP | options))


def mean_of(net):
    return float(net.module_.mean.detach().squeeze())


def test_softplus_is_the_negative_log_probability_of_the_general_model():
    p, general = np.array([0.2, 1.7, 3.0]), np.array([0.5, 1.0, 0.1])
    weight, temperature = 7.0, 2.5
    share = general ** (1 / temperature) / (general ** (1 / temperature) + p ** (1 / temperature))
    computed = softplus_loss(
        torch.from_numpy(np.log(p)),
        torch.from_numpy(np.log(general)),
        weight=weight,
        temperature=temperature,
    )
    np.testing.assert_allclose(computed, -weight * np.log(share))


def test_softplus_does_not_overflow():
    log_p = torch.tensor([1e6, -1e6], dtype=torch.float64)
    loss = softplus_loss(log_p, torch.zeros(2), weight=1.0, temperature=10.0)
    np.testing.assert_allclose(loss, [1e5, 0])


def test_margin_is_a_loop_over_pairs():
    log_p_in, log_p_out = [1.0, 5.0, 2.0], [3.0, -4.0, 1.5]
    expected = [
        2.0 * max(0.0, 4.0 + b - a) for a, b in zip(log_p_in, log_p_out, strict=True)
    ]  # the second pair is apart by more than the margin
    loss = margin_loss(torch.tensor(log_p_in), torch.tensor(log_p_out), weight=2.0, margin=4.0)
    assert loss.tolist() == expected == [12.0, 0.0, 7.0]


@pytest.mark.parametrize("with_general", [False, True])
def test_a_step_of_softplus_follows_the_formula(inliers, outliers, with_general):
    weight, temperature, m = 4.0, 3.0, len(inliers)
    general = gaussian(max_epochs=3).fit(np.concatenate([inliers, outliers]))
    outliers = np.full((m, 1), 2.5)  # all alike, so that it does not matter which are drawn
    options = {"outliers__general": FrozenEstimator(general)} if with_general else {}
    net = gaussian(
        outliers=outliers,
        outliers__weight=weight,
        outliers__temperature=temperature,
        **options,
    ).fit(inliers)
    location, scale = inliers.mean(), inliers.std()
    z = (2.5 - location) / scale
    log_p = -0.5 * z**2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
    log_p_general = general.score_samples(outliers[:1])[0] if with_general else 0.0
    share = 1 / (1 + math.exp(-(log_p - log_p_general) / temperature))
    # At the moments of the inliers their own gradient vanishes.
    expected = location - ONE_STEP["lr"] * weight / temperature * share * z / scale
    assert mean_of(net) == pytest.approx(expected, rel=1e-9)
    expected_loss = weight * math.log1p(math.exp((log_p - log_p_general) / temperature))
    assert net.history_[0]["outlier_loss"] == pytest.approx(expected_loss)
    entropy = 0.5 + math.log(scale) + 0.5 * math.log(2 * math.pi)
    assert net.history_[0]["train_loss"] == pytest.approx(entropy + expected_loss)


def test_a_step_of_the_margin_loss_follows_the_formula(inliers):
    net = gaussian(
        outliers=np.full((5, 1), 2.5),
        outlier_loss="margin",
        outliers__weight=0.5,
        outliers__margin=1e4,  # so large that every pair counts
    ).fit(inliers)
    location, scale = inliers.mean(), inliers.std()
    expected = location - ONE_STEP["lr"] * 0.5 * (2.5 - location) / scale**2
    assert mean_of(net) == pytest.approx(expected, rel=1e-9)


def test_the_margin_is_one_nat_a_dimension_unless_told(rng):
    X = rng.normal(size=(50, 3))
    at_the_margin = gaussian(outliers=X[:1], outlier_loss="margin", iterator_train__shuffle=False)
    history = at_the_margin.fit(np.repeat(X[:1], 50, axis=0)).history_
    assert history[0]["outlier_loss"] == pytest.approx(3.0)  # an inlier and an outlier alike


@pytest.mark.parametrize("loss", ["softplus", "margin"])
def test_outliers_become_less_likely_and_inliers_hardly(inliers, outliers, loss):
    options = {"max_epochs": 60, "optimizer": "adam", "batch_size": 64}
    scale = {"outliers__temperature": 2.0} if loss == "softplus" else {"outliers__margin": 6.0}
    plain = gaussian(**options).fit(inliers)
    net = gaussian(
        outliers=outliers, outlier_loss=loss, outliers__weight=0.5, **scale, **options
    ).fit(inliers)
    fell_outside = plain.score(outliers) - net.score(outliers)
    fell_inside = plain.score(inliers) - net.score(inliers)
    assert mean_of(net) < mean_of(plain) - 0.05
    assert fell_outside > 0.5
    assert 0 < fell_inside < 0.2 * fell_outside


def test_what_the_general_model_finds_likely_is_pushed_less(inliers, outliers):
    options = {"outliers": outliers, "outliers__weight": 1.0, "outliers__temperature": 1.0}
    near, far = (gaussian(max_epochs=3).fit(X) for X in (outliers, outliers + 9))
    pushed_less, pushed_more = (
        gaussian(outliers__general=general, **options).fit(inliers) for general in (near, far)
    )
    assert mean_of(pushed_more) < mean_of(pushed_less) < inliers.mean()


@pytest.mark.parametrize("loss", ["softplus", "margin"])
def test_the_seed_decides_everything(inliers, outliers, loss, untouched_global_state):
    first, again, other = (
        gaussian(
            outliers=outliers, outlier_loss=loss, outliers__weight=1.0,
            random_state=seed, batch_size=64,
        ).fit(inliers).score_samples(inliers)
        for seed in (0, 0, 1)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_images_of_a_vae(rng):
    images = rng.integers(0, 100, size=(40, 8, 8), dtype=np.uint8)
    bright = rng.integers(150, 256, size=(30, 1, 8, 8), dtype=np.uint8)
    options = {"module__latent_dim": 3, "module__width": 4, "max_epochs": 3, "random_state": 0}
    plain = GenerativeNet(VAE, **options).fit(images)
    net = GenerativeNet(VAE, outliers=bright, outliers__weight=50.0, **options).fit(images)
    assert net.score(bright) - net.score(images) < plain.score(bright) - plain.score(images)


# --- what is not finite ----------------------------------------------------------------------


def has_no_end(**options):
    settings = {"outliers": np.full((5, 1), 2.0), "outliers__weight": 1.0}
    return GenerativeNet(HasNoEnd, **(ONE_STEP | settings | options))


@pytest.fixture
def start(inliers):
    """A model to begin with, so that rows beyond the end do not take part in initialisation."""
    return gaussian().fit(inliers)


def test_samples_that_are_not_finite_are_left_out(inliers, start):
    with_some = np.concatenate([inliers, np.full((100, 1), 500.0)])
    outliers = np.array([[2.0], [500.0]])
    with pytest.warns(UserWarning, match=r"350 of 1000 log-likelihoods .* 0 batches were skipped"):
        net = has_no_end(initial_model=start, outliers=outliers).fit(with_some)
    expected = has_no_end(initial_model=start).fit(inliers)
    for name, values in net.module_.state_dict().items():
        torch.testing.assert_close(values, expected.module_.state_dict()[name])
        assert not torch.equal(values, start.module_.state_dict()[name])


def test_a_batch_is_skipped_if_most_of_it_is_not_finite(inliers, start):
    batch = inliers[:50]
    bad = np.concatenate([np.full((38, 1), 500.0), inliers[:12]])  # 76 %
    options = {"initial_model": start, "batch_size": 50, "iterator_train__shuffle": False}
    with pytest.warns(UserWarning, match="38 of 150 .* 1 batches were skipped"):
        net = has_no_end(**options).fit(np.concatenate([bad, batch]))
    expected = has_no_end(**options).fit(batch)
    torch.testing.assert_close(net.module_.mean, expected.module_.mean, rtol=0, atol=0)
    assert net.history_[0]["train_loss"] == expected.history_[0]["train_loss"]


def test_training_on_nothing_finite_is_refused(inliers, start):
    net = has_no_end(initial_model=start).fit(inliers)
    before = net.score_samples(inliers)
    with pytest.raises(RuntimeError, match=r"diverged: every batch was skipped in epoch 1"):
        net.fit(np.full((30, 1), 500.0))
    np.testing.assert_array_equal(net.score_samples(inliers), before)


def test_a_gradient_that_is_not_finite_skips_the_batch(inliers):
    X = np.abs(inliers[:64])
    X[0] = 0
    options = {"batch_size": 32, "iterator_train__shuffle": False, "outliers": X[1:9]}
    with pytest.warns(UserWarning, match="1 batches were skipped"):
        net = GenerativeNet(HasNoGradient, **(ONE_STEP | options)).fit(X)
    assert math.isfinite(mean_of(net))


# --- what is refused -------------------------------------------------------------------------

REFUSED = {
    "unknown option": ({"outliers__wieght": 1.0}, TypeError, "there are outliers__general"),
    "weight": ({"outliers__weight": 0}, ValueError, "outliers__weight must be a positive number"),
    "shape": ({"outliers": np.zeros((4, 7))}, ValueError, "outliers"),
    "unfitted": (
        {"outliers__general": gaussian()}, NotFittedError, r"general must be .*FrozenEstimator",
    ),
    "no model": ({"outliers__general": 3}, TypeError, "outliers__general must be a fitted"),
    "loss": ({"outlier_loss": "hinge"}, ValueError, "outlier_loss"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(inliers, outliers, case):
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        gaussian(**({"outliers": outliers} | options)).fit(inliers)


def test_a_general_model_to_which_all_outliers_are_impossible(inliers, start):
    general = has_no_end(initial_model=start).fit(inliers)
    net = gaussian(outliers=np.full((5, 1), 500.0), outliers__general=general)
    with pytest.raises(ValueError, match="no finite log-likelihood to any of the 5 outliers"):
        net.fit(inliers)

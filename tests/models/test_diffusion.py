"""The bound of GaussianDiffusion, term by term, against torch.distributions and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from skgradood.models import GaussianDiffusion

SCHEDULES = ["log_snr", "linear", "cosine"]
VARIANCES = ["posterior", "forward"]


def make_model(shape=(2, 4, 5), *, scale=0.3, **options):
    """A small float64 model away from its initial state."""
    torch.manual_seed(0)
    options = {"n_timesteps": 12, "width": 4, "n_scales": 2} | options
    model = GaussianDiffusion(shape, **options).double()
    model.initialize(images(8, shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.eval()


def images(n, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_is_the_sum_of_divergences_between_normal_distributions(schedule, variance):
    """Every term from the chain's betas and the predicted noise alone, with torch.distributions."""
    model = make_model(schedule=schedule, variance=variance)
    X = images(3, model.input_shape)
    x0 = (X.double() + 0.5) / 128 - 1
    betas = model.chain.betas
    kept = torch.cumprod(1 - betas, 0)
    noise = torch.randn((3, 12, *model.input_shape), generator=seeded(), dtype=torch.float64)
    expected = torch.zeros(3, 13, dtype=torch.float64)
    for t in range(1, 13):
        beta, now, before = betas[t - 1], kept[t - 1], kept[t - 2] if t > 1 else torch.tensor(1.0)
        xt = now.sqrt() * x0 + (1 - now).sqrt() * noise[:, t - 1]
        predicted = model.predict_noise(xt, torch.full((3,), t))
        guess = (xt - (1 - now).sqrt() * predicted) / now.sqrt()

        def posterior_mean(x, xt=xt, beta=beta, now=now, before=before):
            of_x0 = before.sqrt() * beta / (1 - now)
            return of_x0 * x + (1 - beta).sqrt() * (1 - before) / (1 - now) * xt

        if t == 1:
            decoder = Normal(guess, beta.sqrt())
            upper = torch.where(X == 255, 1.0, decoder.cdf(x0 + 1 / 256))
            lower = torch.where(X == 0, 0.0, decoder.cdf(x0 - 1 / 256))
            expected[:, 0] = (upper - lower).log().sum((1, 2, 3))
        else:
            posterior_variance = beta * (1 - before) / (1 - now)
            q = Normal(posterior_mean(x0), posterior_variance.sqrt())
            of_model = posterior_variance if variance == "posterior" else beta
            p = Normal(posterior_mean(guess), of_model.sqrt())
            expected[:, t - 1] = -kl_divergence(q, p).sum((1, 2, 3))
    last = Normal(kept[-1].sqrt() * x0, (1 - kept[-1]).sqrt())
    expected[:, 12] = -kl_divergence(last, Normal(0.0, 1.0)).sum((1, 2, 3))
    actual = model.elbo_by_timestep(X, seeded())
    assert expected[:, 1:].isfinite().all()
    # Differences of distribution functions lose the far tails that the model keeps.
    safe = expected[:, 0].isfinite()
    torch.testing.assert_close(actual[:, 1:], expected[:, 1:], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(actual[safe, 0], expected[safe, 0], rtol=1e-6, atol=1e-6)
    assert actual.isfinite().all()


@pytest.mark.parametrize("variance", VARIANCES)
def test_probabilities_of_the_last_step_sum_to_one(variance):
    model = make_model((1, 1, 1), schedule="linear", variance=variance)
    values = torch.arange(256).reshape(-1, 1, 1, 1)
    x0 = (values.double() + 0.5) / 128 - 1
    for x1 in [-1.2, 0.0, 0.013, 0.99]:
        noisy = torch.full((1, 1, 1, 1), x1, dtype=torch.float64)
        predicted = model.predict_noise(noisy, torch.ones(1, dtype=torch.int64))
        rows = [v.expand(256, 1, 1, 1) for v in (noisy, predicted)]
        first = torch.ones(256, dtype=torch.int64)
        log_probs = model._log_prob_first(x0, rows[0], first, rows[1])
        assert float(log_probs.detach().exp().sum()) == pytest.approx(1, abs=1e-10)


def linear_gaussian(n_timesteps, **options):
    """The best denoiser of one pixel of mean 0.1 and deviation 0.3: a U-Net that adds nothing."""
    options = {"n_timesteps": n_timesteps, "width": 4, "n_scales": 1} | options
    model = GaussianDiffusion((1, 1, 1), **options).double().eval()
    model.location.fill_(0.1)
    model.scale.fill_(0.3)
    return model


def expected_divergences(model, x0):
    """E KL_t for t = 2...T given x_0, for the denoiser E[epsilon | x_t] = noise (x_t - a m) / v."""
    signal, noise = model.chain.signal, model.chain.noise
    v = (0.3 * signal) ** 2 + noise**2
    # The error is linear in epsilon: noise a (x_0 - m) / v + (noise^2 / v - 1) epsilon.
    squared_error = (noise * signal * (x0 - 0.1) / v) ** 2 + (noise**2 / v - 1) ** 2
    betas = model.chain.betas
    before = torch.cat([torch.ones(1, dtype=torch.float64), signal[:-1] ** 2])
    variance = betas * (1 - before) / (1 - before * (1 - betas))
    weight = betas**2 / (2 * variance * (1 - betas) * (1 - before * (1 - betas)))
    return (weight * squared_error)[1:]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_of_a_linear_denoiser_is_its_closed_form(schedule):
    model = linear_gaussian(20, schedule=schedule, n_draws=4000)
    for value in (60, 150):
        X = torch.full((1, 1, 1, 1), value, dtype=torch.uint8)
        with torch.no_grad():
            terms = model.elbo_by_timestep(X, seeded())[0]
        expected = expected_divergences(model, (value + 0.5) / 128 - 1)
        # A squared normal has at most three times its squared mean as variance and so on: 4 %.
        torch.testing.assert_close(-terms[1:20], expected, rtol=0.12, atol=1e-6)
        assert float(-terms[1:20].sum()) == pytest.approx(float(expected.sum()), rel=0.03)


def test_the_bound_of_the_best_denoiser_falls_short_of_the_log_likelihood_by_little():
    """The documented .08 nats for 400 steps, and .02 for the noise of half a bin."""
    model = linear_gaussian(400, n_timesteps_eval=None)
    generator = np.random.default_rng(0)
    values = np.floor((0.1 + 0.3 * generator.standard_normal(4000) + 1) * 128).clip(0, 255)
    X = torch.from_numpy(values.astype(np.uint8)).reshape(-1, 1, 1, 1)
    x0 = (values + 0.5) / 128 - 1
    log_likelihood = np.log(norm(0.1, 0.3).cdf(x0 + 1 / 256) - norm(0.1, 0.3).cdf(x0 - 1 / 256))
    with torch.no_grad():
        gap = log_likelihood - model.log_prob(X, seeded()).numpy()
    assert gap.mean() == pytest.approx(0.1, abs=4 * gap.std() / math.sqrt(len(gap)))


def mean_and_error(values):
    values = values.detach()
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_some_timesteps_estimate_the_bound_of_all_without_bias(schedule, variance):
    model = make_model((1, 2, 2), schedule=schedule, variance=variance, n_timesteps=8)
    X = images(1, (1, 2, 2)).expand(3000, -1, -1, -1)
    with torch.no_grad():
        whole, error = mean_and_error(model.elbo_by_timestep(X, seeded(1)).sum(1))
        for m, n_draws in [(1, 1), (3, 2)]:
            model.n_timesteps_eval, model.n_draws = m, n_draws
            estimate, other = mean_and_error(model.log_prob(X, seeded(2)))
            assert estimate == pytest.approx(whole, abs=4 * math.hypot(error, other))
        losses = torch.cat([model.training_loss(X[:300], seeded(i)) for i in range(20)])
    loss, other = mean_and_error(losses)
    assert -loss == pytest.approx(whole, abs=4 * math.hypot(error, other))


def test_all_timesteps_are_the_sum_of_the_terms():
    model = make_model(n_timesteps_eval=None, n_draws=2)
    X = images(3, model.input_shape)
    terms = model.elbo_by_timestep(X, seeded())
    assert terms.shape == (3, 13)
    assert torch.equal(model.log_prob(X, seeded()), terms.sum(1))


def test_the_simple_objective_is_the_error_of_the_noise():
    model = make_model(objective="simple")
    X = images(6, model.input_shape)
    generator = seeded()
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    noise = torch.randn((6, 2, 4, 5), generator=generator, dtype=torch.float64)
    t = 1 + ((torch.arange(6) + start) / 6 * 12).long()
    assert len(set(t.tolist())) == 6
    kept = torch.cumprod(1 - model.chain.betas, 0)[t - 1][:, None, None, None]
    noisy = kept.sqrt() * ((X.double() + 0.5) / 128 - 1) + (1 - kept).sqrt() * noise
    expected = 0.5 * (model.predict_noise(noisy, t) - noise).square().sum((1, 2, 3))
    torch.testing.assert_close(model.training_loss(X, seeded()), expected)


def test_noise_comes_from_the_generator_unless_it_is_shared():
    model = make_model(n_timesteps_eval=3)
    X = images(3, model.input_shape)
    values = [model.log_prob(X, seeded(i)) for i in (0, 0, 1)]
    assert torch.equal(values[0], values[1])
    assert not torch.isclose(values[0], values[2]).any()
    alone = torch.cat([model.log_prob(x[None]) for x in X])
    torch.testing.assert_close(model.log_prob(X), alone)
    model.noise = "shared"
    assert torch.equal(model.log_prob(X, seeded(0)), model.log_prob(X))


def test_samples_of_a_linear_chain_have_its_moments():
    """The chain x_{t-1} = A_t x_t + b_t + noise, followed by hand from t = T to 0."""
    model = linear_gaussian(50)
    schedule, signal, noise = model.chain, model.chain.signal, model.chain.noise
    mean, variance = 0.0, 1.0
    for t in reversed(range(50)):
        v = (0.3 * signal[t]) ** 2 + noise[t] ** 2
        slope = (1 - schedule.betas[t] / v) / (1 - schedule.betas[t]).sqrt()
        shift = schedule.betas[t] * signal[t] * 0.1 / v / (1 - schedule.betas[t]).sqrt()
        before = signal[t - 1] ** 2 if t else torch.tensor(1.0)
        added = schedule.betas[t] * (1 - before) / (1 - signal[t] ** 2) if t else schedule.betas[0]
        mean, variance = slope * mean + shift, slope**2 * variance + added
    n = 5_000
    drawn = (model.sample(n, seeded()).double().flatten() + 0.5) / 128 - 1
    assert float(drawn.mean()) == pytest.approx(float(mean), abs=4 * 0.3 / math.sqrt(n))
    assert float(drawn.std()) == pytest.approx(float(variance) ** 0.5, rel=4 / math.sqrt(2 * n))
    assert 0.26 < float(variance) ** 0.5 < 0.3


def test_without_gradients_large_batches_go_through_in_parts(monkeypatch):
    model = make_model(n_timesteps_eval=4)
    X = images(5, model.input_shape)
    expected = model.log_prob(X).detach()
    monkeypatch.setattr("skgradood.models.diffusion.gaussian_diffusion._NUMBERS_AT_ONCE", 300)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(X), expected)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 9, 17), (1, 1, 1)])
def test_shapes(shape):
    model = GaussianDiffusion(shape, n_timesteps=5, width=8, n_timesteps_eval=2)
    assert model.log_prob(images(2, shape)).shape == (2,)
    samples = [model.sample(2, seeded(i)) for i in (0, 0, 1)]
    assert samples[0].shape == (2, *shape)
    assert samples[0].dtype == torch.uint8
    assert torch.equal(samples[0], samples[1])
    assert shape == (1, 1, 1) or not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "constant"}, "schedule must be one of 'log_snr', 'linear', 'cosine'"),
        ({"objective": "l1"}, "objective must be one of 'elbo', 'simple'"),
        ({"variance": "learned"}, "variance must be one of 'posterior', 'forward'"),
        ({"noise": "none"}, "noise must be one of 'row', 'shared'"),
        ({"n_timesteps": 1}, "n_timesteps must be at least 2"),
        ({"n_draws": 0}, "n_draws must be at least 1"),
        ({"n_timesteps_eval": 0}, "n_timesteps_eval must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianDiffusion((1, 8, 8), **options)

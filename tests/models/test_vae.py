"""The VAE against its formula written with torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from skgradood.models import VAE

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 9, 17), (1, 63, 64)]


def make_vae(shape=(2, 9, 12)):
    """A small float64 model whose batch norms have seen data."""
    torch.manual_seed(0)
    model = VAE(shape, latent_dim=5, width=4).double()
    model.training_loss(images(16, shape))
    return model.eval()


def images(n, shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


def elbo(model, X, latent):
    mean, log_variance = model.encode(X)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    divergence = kl_divergence(posterior, Normal(torch.zeros_like(mean), 1.0)).sum(dim=1)
    pixels = Categorical(logits=model.decode(latent).movedim(1, -1))
    return pixels.log_prob(X.long()).flatten(1).sum(dim=1) - divergence


def test_log_prob_is_the_elbo_at_the_posterior_mean():
    model = make_vae()
    X = images(3, model.input_shape)
    torch.testing.assert_close(model.log_prob(X), elbo(model, X, model.encode(X)[0]))


def test_elbo_draws_once_from_the_posterior():
    model = make_vae()
    X = images(3, model.input_shape)
    mean, log_variance = model.encode(X)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = elbo(model, X, mean + noise * (0.5 * log_variance).exp())
    torch.testing.assert_close(model.elbo(X, torch.Generator().manual_seed(5)), expected)
    torch.testing.assert_close(model.training_loss(X, torch.Generator().manual_seed(5)), -expected)


def test_importance_weighted_bound_is_burdas():
    model = make_vae()
    X = images(3, model.input_shape)
    mean, log_variance = model.encode(X)
    posterior, prior = Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros_like(mean), 1.0)
    generator = torch.Generator().manual_seed(5)
    weights = []
    for _ in range(4):
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        z = mean + noise * posterior.scale
        pixels = Categorical(logits=model.decode(z).movedim(1, -1))
        joint = pixels.log_prob(X.long()).flatten(1).sum(1) + prior.log_prob(z).sum(1)
        weights.append(joint - posterior.log_prob(z).sum(1))
    shift = torch.stack(weights).amax(0)
    expected = shift + (torch.stack(weights) - shift).exp().mean(0).log()
    bound = model.log_prob_iw(X, torch.Generator().manual_seed(5), k=4)
    torch.testing.assert_close(bound, expected)


def test_more_importance_weights_come_closer_to_the_log_likelihood_from_below():
    """A decoder that reads one latent variable only: the integral over it by quadrature."""
    model = make_vae((1, 8, 8))
    X = images(4, model.input_shape)
    with torch.no_grad():
        model.decoder[0].weight[1:].zero_()
        mean, _ = model.encode(X)
        grid = torch.linspace(-8, 8, 2001, dtype=torch.float64)
        latent = torch.zeros(len(grid), mean.shape[1], dtype=torch.float64)
        latent[:, 0] = grid
        logits = model.decode(latent).movedim(1, -1)
        for x in X:
            log_prob = Categorical(logits=logits).log_prob(x.long()).flatten(1).sum(1)
            joint = log_prob + Normal(0.0, 1.0).log_prob(grid)
            exact = joint.logsumexp(0) + (grid[1] - grid[0]).log()
            generator = torch.Generator().manual_seed(0)
            gaps = [
                exact - torch.stack([model.log_prob_iw(x[None], generator, k) for _ in range(40)])
                for k in (1, 50)
            ]
            assert gaps[0].mean() > gaps[1].mean() > -0.1
            assert gaps[1].mean() < 0.3


def test_the_published_size():
    """Weights of the model in the published code: 1x32x32, latent dimension 100."""
    weights = [p.numel() for p in VAE((1, 32, 32)).parameters() if p.ndim == 4]
    assert len(weights) == 9
    assert sum(weights) == 1_073_664


@pytest.mark.parametrize("shape", SHAPES)
def test_every_size_comes_back(shape):
    model = VAE(shape, latent_dim=3, width=2).eval()
    assert model.decode(torch.zeros(2, 3)).shape == (2, 256, *shape)
    samples = model.sample(2, torch.Generator().manual_seed(0))
    assert samples.shape == (2, *shape)
    assert samples.dtype == torch.uint8
    assert model.log_prob(samples).shape == (2,)


def test_samples_follow_the_decoder():
    """With one value certain for every pixel, samples hold nothing else."""
    model = make_vae()
    last = model.decoder[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias.view(256, -1)[7, 0] = 100
        last.bias.view(256, -1)[9, 1] = 100
    samples = model.sample(3, torch.Generator().manual_seed(0))
    assert (samples[:, 0] == 7).all()
    assert (samples[:, 1] == 9).all()


def test_every_parameter_matters():
    model = make_vae()
    model.elbo(images(4, model.input_shape), torch.Generator().manual_seed(0)).sum().backward()
    assert [name for name, p in model.named_parameters() if not p.grad.abs().max() > 1e-12] == []


@pytest.mark.parametrize("shape", [(1, 7, 8), (8, 8), (0, 8, 8)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="at least 8"):
        VAE(shape)

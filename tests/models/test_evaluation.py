"""Log-likelihoods without gradients: the values, and the noise, of the gradient engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skgradood.gradients import GradientEngine, SquaredNorms, layer_layout
from skgradood.models import VAE, DiagonalGaussian, Glow
from skgradood.models._evaluation import log_likelihood_contributions, log_likelihoods
from skgradood.models._fitted import fit_likelihood
from tests.gradients.test_side_effects import assert_same, snapshot


class Noisy(nn.Module):
    """Draws as its option says: from the generator, from torch, or in a way no row can be given."""

    input_kind = "continuous"

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.mean = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def log_prob(self, X, generator=None):
        if self.source == "generator":
            noise = torch.randn(X.shape, generator=generator, dtype=X.dtype)
        elif self.source == "global":
            noise = torch.randn_like(X)
        else:
            source = generator if self.source == "unknown to rows" else None
            noise = torch.normal(torch.zeros_like(X), 1.0, generator=source)
        return -((X + noise - self.mean) ** 2).sum(dim=1)


@pytest.fixture
def rows(rng):
    return rng.normal(size=(13, 3))


@pytest.mark.parametrize("source", ["generator", "global", "unknown to rows", "unknown and global"])
def test_noise_is_that_of_single_rows_in_the_gradient_engine(source, rows, untouched_global_state):
    module = Noisy(source)
    engine = GradientEngine(module, engine="loop", random_state=5)
    expected = engine.run(torch.as_tensor(rows), SquaredNorms(layer_layout(module)))
    model = fit_likelihood(module, rows)
    for batch_size in (1, 4, "auto"):
        values = log_likelihoods(model, rows, batch_size=batch_size, random_state=5)
        np.testing.assert_allclose(values, expected, rtol=1e-12)
    other = log_likelihoods(model, rows, random_state=6)
    assert not np.isclose(other, expected).any()
    np.testing.assert_allclose(log_likelihoods(model, rows[::-1], random_state=5)[::-1], expected)


def test_values_are_the_closed_form(rows):
    module = DiagonalGaussian((3,)).double()
    values = log_likelihoods(fit_likelihood(module, rows), rows)
    expected = -0.5 * (rows**2).sum(axis=1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_a_module_in_training_is_evaluated_at_rest_and_left_as_it_was(rng):
    images = rng.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    module = VAE((1, 8, 8), latent_dim=2, width=4).train()
    before = snapshot(module)
    values = log_likelihoods(fit_likelihood(module, images), images, batch_size=2)
    assert_same(before, snapshot(module))
    with torch.no_grad():
        expected = module.eval().log_prob(torch.as_tensor(images))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_any_callable_may_stand_in(rows):
    module = DiagonalGaussian((3,)).double()
    model = fit_likelihood(module, rows)
    values = log_likelihoods(
        model,
        rows,
        log_likelihood=lambda module, X, generator: X.sum(dim=1) + len(list(module.parameters())),
    )
    np.testing.assert_allclose(values, rows.sum(axis=1) + 2)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such", "DiagonalGaussian has no method no_such"),
        (lambda module, X, generator: X.sum(), r"returned \(\) for 13 samples.*batch mean"),
    ],
)
def test_what_is_no_log_likelihood_is_refused(function, message, rows):
    model = fit_likelihood(DiagonalGaussian((3,)).double(), rows)
    with pytest.raises(TypeError, match=message):
        log_likelihoods(model, rows, log_likelihood=function)


def test_contributions_sum_to_the_log_likelihood(rng):
    images = rng.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    module = Glow((1, 8, 8), n_levels=3, n_steps=1, hidden_channels=4)
    model = fit_likelihood(module, images)
    contributions = log_likelihood_contributions(model, images, batch_size=2)
    assert contributions.shape == (5, 3)
    np.testing.assert_allclose(contributions.sum(axis=1), log_likelihoods(model, images), rtol=1e-5)
    with pytest.raises(TypeError, match="VAE has no method log_prob_contributions"):
        log_likelihood_contributions(
            fit_likelihood(VAE((1, 8, 8), latent_dim=2, width=4), images), images
        )

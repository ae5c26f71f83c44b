"""The rounded logistic mixture against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from skgradood.models.pixel_cnn.likelihoods import Categorical, LogisticMixture


def outputs_of(distribution, seed=0, scale=1.0, n=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, distribution.n_outputs, 1, 1)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n_channels", [1, 2, 3])
@pytest.mark.parametrize("make", [lambda c: Categorical(c, 4), lambda c: LogisticMixture(c, 4, 3)])
def test_probabilities_of_all_colours_sum_to_one(make, n_channels):
    distribution = make(n_channels)
    colours = torch.tensor(list(itertools.product(range(4), repeat=n_channels)))
    outputs = outputs_of(distribution).expand(len(colours), -1, -1, -1)
    log_probs = distribution.log_prob(outputs, colours[:, :, None, None])
    assert float(log_probs.exp().sum()) == pytest.approx(1, abs=1e-12)


def reference(outputs, colour, n_values, n_components):
    """Σ_k π_k Π_c [F(x_c + half a bin) - F(x_c - half a bin)], tails to the outermost values."""
    n_channels = len(colour)
    raw = outputs.reshape(n_components, -1).numpy()
    x = np.asarray(colour) * 2 / (n_values - 1) - 1
    weights = np.exp(raw[:, 0]) / np.exp(raw[:, 0]).sum()
    means, log_scales, coefficients = np.split(raw[:, 1:], [n_channels, 2 * n_channels], axis=1)
    total = 0.0
    for k in range(n_components):
        slopes = iter(np.tanh(coefficients[k]))
        probability = weights[k]
        for c in range(n_channels):
            mean = means[k, c] + sum(next(slopes) * x[d] for d in range(c))
            cdf = logistic(mean, np.exp(np.maximum(log_scales[k, c], -7))).cdf
            upper = 1 if colour[c] == n_values - 1 else cdf(x[c] + 1 / (n_values - 1))
            lower = 0 if colour[c] == 0 else cdf(x[c] - 1 / (n_values - 1))
            probability *= upper - lower
        total += probability
    return np.log(total)


@pytest.mark.parametrize("colour", [(0, 255, 128), (7, 0, 0), (255, 255, 255), (90, 91, 200)])
def test_the_mixture_is_what_it_says(colour):
    distribution = LogisticMixture(3, 256, 4)
    outputs = outputs_of(distribution, seed=2)
    actual = distribution.log_prob(outputs, torch.tensor(colour).reshape(1, 3, 1, 1))
    assert float(actual) == pytest.approx(reference(outputs, colour, 256, 4), rel=1e-9)


def test_far_tails_and_narrow_scales_stay_finite_in_single_precision():
    distribution = LogisticMixture(1, 256, 1)
    values = torch.arange(256).reshape(-1, 1, 1, 1)
    for mean, log_scale in [(-5.0, -7.0), (5.0, -50.0), (0.0, 50.0), (0.0, -7.0)]:
        outputs = torch.tensor([0.0, mean, log_scale]).reshape(1, 3, 1, 1).requires_grad_()
        log_probs = distribution.log_prob(outputs.expand(256, -1, -1, -1), values)
        (gradient,) = torch.autograd.grad(log_probs.sum(), outputs)
        assert log_probs.isfinite().all()
        assert gradient.isfinite().all()
        assert float(log_probs.detach().exp().sum()) == pytest.approx(1, abs=1e-4)


def test_means_of_later_channels_follow_earlier_ones():
    """With slopes of one and narrow scales, all channels are those of the first."""
    distribution = LogisticMixture(3, 256, 1)
    outputs = torch.tensor([0.0, 0.25, 0.0, 0.0, -7.0, -7.0, -7.0, 50.0, 0.0, 50.0])
    drawn = distribution.draw(
        outputs.reshape(1, -1, 1, 1).expand(64, -1, -1, -1), slice(0, 3), torch.Generator()
    )[:, :, 0, 0]
    first = drawn[:, :1]
    assert ((first - 159).abs() <= 2).all()
    assert ((drawn - first).abs() <= 2).all()
    spread = (drawn[:, 1] - drawn[:, 0]).double().std()
    assert float(spread) < 1

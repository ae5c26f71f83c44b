"""Rao's score test: what the statistic's distribution is where the model is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from skgradood.fisher import QuadraticForms
from skgradood.gradients import GradientEngine, layer_layout
from skgradood.metrics import auroc
from tests.fisher import closed, oracles

N_FISHER = 20_000
SHIFTED = np.array([0.8, -0.3, 0.5, 0.0])
ROOT = np.random.default_rng(5).normal(size=(4, 4)) + 2 * np.eye(4)


def gaussian_rows(n, seed, shift=0.0):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=(n, 4)) @ ROOT.T + shift)


@pytest.fixture(scope="module")
def gaussian():
    """The mean of a Gaussian of four correlated dimensions, and its block from other rows."""
    module = closed.FullGaussian(np.zeros(4), ROOT @ ROOT.T)
    estimate = oracles.estimated(module, gaussian_rows(N_FISHER, 100), ["block"], damping=0)
    return module, estimate


@pytest.fixture(scope="module")
def flow():
    module = closed.LinearFlow(ROOT)
    generator = torch.Generator().manual_seed(100)
    X = module.sample(N_FISHER, generator=generator)
    return module, oracles.estimated(module, X, ["block"], damping=0)


def group_forms(module, estimate, groups):
    forms = QuadraticForms(layer_layout(module), estimate.by_parameter)
    GradientEngine(module, grouped=True, verify=False).run(groups, forms)
    return forms.result()[0, :, 0] / groups.shape[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_score_of_a_gaussian_mean_is_chi_square(gaussian, seed):
    """Exactly so for single rows: the score is linear in the row."""
    module, estimate = gaussian
    statistics = oracles.statistics(module, gaussian_rows(1000, seed), estimate)[0, :, 0]
    assert stats.kstest(statistics, stats.chi2(4).cdf).pvalue > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_groups_from_a_linear_flow_are_chi_square_on_its_live_directions(flow, seed):
    """By the central limit theorem, with d(d + 1)/2 degrees of freedom."""
    module, estimate = flow
    n, size = 200, 400
    generator = torch.Generator().manual_seed(seed)
    groups = module.sample(n * size, generator=generator).unflatten(0, (n, size))
    statistics = group_forms(module, estimate, groups)
    assert estimate.by_parameter["matrix"][0].effective_dim() == pytest.approx(10, abs=1e-6)
    assert stats.kstest(statistics, stats.chi2(10).cdf).pvalue > 0.01
    # The test can tell two degrees of freedom more.
    assert stats.kstest(statistics, stats.chi2(12).cdf).pvalue < 0.01


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_power_against_a_shifted_mean_is_that_of_the_non_central_distribution(
    gaussian, strength, size
):
    module, estimate = gaussian
    n = 3000
    shift = strength * SHIFTED @ ROOT.T
    non_centrality = size * strength**2 * SHIFTED @ SHIFTED
    outlying = stats.ncx2(4, non_centrality)
    expected, _ = integrate.quad(lambda t: stats.chi2(4).pdf(t) * outlying.sf(t), 0, np.inf)
    inliers, outliers = (
        group_forms(module, estimate, gaussian_rows(n * size, seed, s).unflatten(0, (n, size)))
        for seed, s in ((11, 0.0), (12, shift))
    )
    assert stats.kstest(outliers, outlying.cdf).pvalue > 0.01
    # Four standard errors, by the bound AUROC (1 - AUROC) / n for each sample.
    tolerance = 4 * np.sqrt(2 * expected * (1 - expected) / n)
    assert auroc(-inliers, -outliers) == pytest.approx(expected, abs=tolerance)
    assert 0.55 < expected < 0.9999

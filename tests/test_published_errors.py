"""The known errors of published code, each beside what we do: they differ as documented.

``docs/published_code.md`` has the list. Errors of units and of the statistics of ROSE are shown
where their detectors are tested.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from scipy.integrate import trapezoid
from sklearn.metrics import roc_auc_score
from torch import nn

from skgradood import ChiSquareJointDensity, LogLikelihoodDetector, layer_gradient_norms
from skgradood.metrics import auroc
from skgradood.models import VAE


def test_jacobian_of_the_logarithm_is_y_and_not_log_y(rng):
    """The density of y = log f is p(f) f: with log y for log f it does not integrate to one."""
    f = 3 * rng.chisquare(5, size=(2000, 1))
    detector = ChiSquareJointDensity(marginal="chi2", dependence="independent").fit(f)
    y = np.linspace(-12, 8, 20001)
    log_density_of_f = detector.score_samples(np.exp(y)[:, None])
    assert trapezoid(np.exp(log_density_of_f + y), y) == pytest.approx(1, abs=1e-6)
    positive = y > 1e-9
    faulty = log_density_of_f[positive] + np.log(y[positive])
    assert trapezoid(np.exp(faulty), y[positive]) < 0.5
    assert (faulty < log_density_of_f[positive] + y[positive]).all()


def test_fishers_method_sees_one_extreme_layer_that_a_sum_of_p_values_does_not(rng):
    columns = rng.normal(size=(4000, 10))
    detector = ChiSquareJointDensity(dependence="independent", tail="two-sided").fit(columns)
    one_extreme, all_moderate = np.zeros((1, 10)), np.full((1, 10), 0.9)
    one_extreme[0, 3] = 9.0

    def summed(row):  # 2 min(p, 1 - p), summed: small for outliers
        p = scipy.stats.norm.cdf(row)
        return (2 * np.minimum(p, 1 - p)).sum()

    assert summed(one_extreme) > summed(all_moderate)
    ours = detector.score_samples(np.concatenate([one_extreme, all_moderate]))
    assert ours[0] < np.log(1e-6) < np.log(0.05) < ours[1]
    # With the chi-square tail of -2 sum log p on 2 L degrees of freedom.
    z = (one_extreme - detector.location_) / detector.scale_
    log_p = np.log(2) + scipy.stats.norm.logsf(np.abs(z))
    expected = scipy.stats.chi2.logsf(-2 * log_p.sum(), 20)
    assert ours[0] == pytest.approx(expected, rel=1e-6)


def test_noise_shared_by_a_batch_makes_a_score_depend_on_its_company(rng):
    torch.manual_seed(0)
    vae = VAE((1, 8, 8), latent_dim=3, width=4).double().eval()
    images = rng.integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)

    def shared(X, seed=0):
        mean, log_variance = vae.encode(torch.as_tensor(X))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return vae.bound(torch.as_tensor(X), mean, log_variance, noise.double()).numpy()

    assert abs(shared(images)[3] - shared(images[2:])[1]) > 1e-4
    detector = LogLikelihoodDetector(vae, log_likelihood="elbo", batch_size=3).fit(images)
    ours = detector.score_samples(images)
    np.testing.assert_allclose(detector.score_samples(images[2:])[1], ours[3], rtol=1e-12)
    np.testing.assert_allclose(detector.score_samples(images[::-1])[::-1], ours, rtol=1e-12)
    # Noise-free unless asked for: the bound at the posterior's mean.
    free = LogLikelihoodDetector(vae).fit(images).score_samples(images)
    with torch.no_grad():
        np.testing.assert_allclose(free, vae.log_prob(torch.as_tensor(images)), rtol=1e-12)


class Masked(nn.Module):
    """A causal row model, x_i given those before it, with the mask in or outside the graph."""

    def __init__(self, by_data):
        super().__init__()
        self.by_data = by_data
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 4, generator=generator, dtype=torch.float64))
        self.mask = torch.tril(torch.ones(4, 4, dtype=torch.float64), -1)

    def log_prob(self, X):
        weight = self.weight * self.mask
        if self.by_data:
            self.weight.data.mul_(self.mask)
            weight = self.weight
        return -0.5 * ((X - X @ weight.T) ** 2).sum(dim=1)


def test_masked_weights_take_no_part_in_the_norm(rng):
    X = torch.as_tensor(rng.normal(size=(5, 4)))
    faulty = layer_gradient_norms(Masked(by_data=True), X, engine="loop")[:, 0]
    module = Masked(by_data=False)
    ours = layer_gradient_norms(module, X)[:, 0]
    residual = (X - X @ (module.weight * module.mask).T).detach()
    gradient = residual[:, :, None] * X[:, None, :] * module.mask
    np.testing.assert_allclose(ours, gradient.square().sum((1, 2)), rtol=1e-10)
    assert (faulty > ours + 1e-6).all()


def test_a_batch_mean_is_no_log_likelihood(rng):
    class Averaged(Masked):
        def log_prob(self, X):
            return super().log_prob(X).mean()

    X = rng.normal(size=(5, 4))
    with pytest.raises(TypeError, match=r"returned \(\) for 5 samples.*batch mean"):
        LogLikelihoodDetector(Averaged(by_data=False)).fit(X)
    with pytest.raises(TypeError, match=r"batch mean"):
        layer_gradient_norms(Averaged(by_data=False), torch.as_tensor(X))


def test_a_sigmoid_ties_log_likelihoods(rng):
    inliers, outliers = -2000 + rng.normal(size=500), -2003 + rng.normal(size=500)
    labels = np.repeat([1, 0], 500)
    squashed = scipy.special.expit(np.concatenate([inliers, outliers]).astype(np.float32))
    assert roc_auc_score(labels, squashed) == 0.5
    ours = auroc(inliers, outliers)
    assert ours == pytest.approx(scipy.stats.norm.cdf(3 / np.sqrt(2)), abs=0.01)

"""Stein discrepancies against autograd over pairs, and against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from skgradood import GenerativeNet, SteinDiscrepancyDetector
from skgradood.metrics import auroc
from skgradood.models import VAE, DiagonalGaussian, Glow, RealNVP
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.detectors.likelihoods import gaussian


@pytest.fixture
def flow():
    torch.manual_seed(0)
    module = RealNVP((3,), n_layers=2, hidden=4).double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


def radial(kind, bandwidth):
    def kernel(module, x, y):
        t = ((x - y) ** 2).sum() / bandwidth**2
        return torch.exp(-t / 2) if kind == "rbf" else (1 + t) ** -0.5

    return kernel


def fisher_kernel(inverse):
    def score(module, x):
        parameters = list(module.parameters())
        value = module.log_prob(x[None]).sum()
        found = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
        return torch.cat(
            [
                torch.zeros(p.numel(), dtype=p.dtype) if g is None else g.flatten()
                for g, p in zip(found, parameters, strict=True)
            ]
        )

    return lambda module, x, y: (score(module, x) * inverse * score(module, y)).sum()


def stein_kernel(module, kernel, x, y):
    """u(x, y) term by term, every derivative by autograd."""
    x, y = (torch.as_tensor(v).clone().requires_grad_() for v in (x, y))
    (s_x,) = torch.autograd.grad(module.log_prob(x[None]).sum(), x)
    (s_y,) = torch.autograd.grad(module.log_prob(y[None]).sum(), y)
    k = kernel(module, x, y)
    k_x, k_y = torch.autograd.grad(k, (x, y), create_graph=True)
    trace = sum(
        torch.autograd.grad(k_x[d], y, retain_graph=True)[0][d].item() for d in range(len(x))
    )
    return float(s_x @ s_y * k + s_x @ k_y + s_y @ k_x) + trace


def brute_force(module, kernel, group, statistic):
    pairs = itertools.product(range(len(group)), repeat=2)
    return np.mean(
        [
            stein_kernel(module, kernel, group[i], group[j])
            for i, j in pairs
            if statistic == "biased" or i != j
        ]
    )


@pytest.mark.parametrize("statistic", ["biased", "unbiased"])
@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_is_the_double_sum_over_pairs(kind, statistic, flow, rng):
    groups = rng.normal(size=(4, 5, 3))
    detector = SteinDiscrepancyDetector(
        flow, kernel=kind, bandwidth=1.3, statistic=statistic, grouped=True, batch_size=7
    )
    expected = [-brute_force(flow, radial(kind, 1.3), group, statistic) for group in groups]
    np.testing.assert_allclose(detector.fit(groups).score_samples(groups), expected, rtol=1e-9)


@pytest.mark.parametrize("statistic", ["biased", "unbiased"])
def test_with_the_fisher_kernel_too(statistic, flow, rng):
    groups = rng.normal(size=(3, 4, 3))
    detector = SteinDiscrepancyDetector(flow, kernel="fisher", statistic=statistic, grouped=True)
    detector.fit(groups)
    scores = []
    for x in torch.as_tensor(groups.reshape(-1, 3)):
        found = torch.autograd.grad(
            flow.log_prob(x[None]).sum(), list(flow.parameters()), allow_unused=True
        )
        scores.append(
            [
                p.new_zeros(p.shape) if g is None else g
                for g, p in zip(found, flow.parameters(), strict=True)
            ]
        )
    inverse = []
    for of_parameter in zip(*scores, strict=True):
        squares = torch.stack(of_parameter).square().mean(0).flatten()
        damped = squares + 3e-3 * squares.mean()
        inverse.append(torch.where(damped > 0, 1 / damped, 0.0))
    kernel = fisher_kernel(torch.cat(inverse))
    expected = [-brute_force(flow, kernel, group, statistic) for group in groups]
    np.testing.assert_allclose(detector.score_samples(groups), expected, rtol=1e-7)


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_of_a_shifted_normal_is_known(shift):
    """With s_p - s_q = -m constant, KSD² = m² E k = m² / sqrt(1 + 2 / h²) under N(m, 1)."""
    rng = np.random.default_rng(0)
    detector = SteinDiscrepancyDetector(
        gaussian([0.0], [1.0]), kernel="rbf", bandwidth=1.5, statistic="unbiased", grouped=True
    ).fit(rng.normal(size=(10, 4, 1)))
    values = -detector.score_samples(rng.normal(size=(4000, 6, 1)) + shift)
    population = shift**2 / np.sqrt(1 + 2 / 1.5**2)
    assert abs(values.mean() - population) < 4 * values.std() / np.sqrt(len(values))


def test_of_the_fisher_kernel_of_a_shifted_normal_is_known():
    """Of the parameters (mean, log-scale), F = (1, 2): g = (x, x² - 1), so that with s = -x

    h = (1 - x², 3x - x³), whose expectations under N(m, 1) are -m² and -m³.
    """
    rng = np.random.default_rng(0)
    detector = SteinDiscrepancyDetector(
        gaussian([0.0], [1.0]), kernel="fisher", statistic="unbiased", grouped=True
    ).fit(rng.normal(size=(1500, 2, 1)))
    for shift in (0.0, 0.7):
        values = -detector.score_samples(rng.normal(size=(1500, 6, 1)) + shift)
        population = shift**4 / 1.003 + shift**6 / 2.006
        error = 4 * values.std() / np.sqrt(len(values)) + 0.05 * population
        assert abs(values.mean() - population) < error


@pytest.mark.parametrize("kernel", ["imq", "rbf", "fisher"])
def test_larger_groups_tell_more(kernel, rng):
    module = gaussian(np.zeros(3), np.ones(3))
    found = []
    for size in (1, 5, 25):
        inliers = make_groups(rng.normal(size=(1000, 3)), size, random_state=0)
        outliers = make_groups(1.4 * rng.normal(size=(1000, 3)), size, random_state=0)
        detector = SteinDiscrepancyDetector(module, kernel=kernel, grouped=True).fit(inliers[::2])
        found.append(auroc(detector.score_samples(inliers[1::2]), detector.score_samples(outliers)))
    assert 0.5 < found[0] < found[1] < found[2]
    assert found[2] > 0.8


def test_single_samples_are_judged_by_the_norm_of_their_input_score(flow, rng):
    X = rng.normal(size=(10, 3))
    detector = SteinDiscrepancyDetector(flow, bandwidth=2.0).fit(X)
    rows = torch.as_tensor(X).requires_grad_()
    (scores,) = torch.autograd.grad(flow.log_prob(rows).sum(), rows)
    expected = scores.square().sum(1) + 3 / 2.0**2  # -2 κ'(0) D / h²
    np.testing.assert_allclose(detector.score_samples(X), -expected, rtol=1e-9)
    with pytest.raises(ValueError, match=r"groups of two or more; got groups of 1"):
        SteinDiscrepancyDetector(flow, statistic="unbiased").fit(X)


def test_the_bandwidth_is_the_median_distance(flow, rng):
    X = rng.normal(size=(15, 3))
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(X, 2)]
    detector = SteinDiscrepancyDetector(flow).fit(X)
    assert detector.bandwidth_ == pytest.approx(np.median(distances))
    many = rng.normal(size=(3000, 3))
    assert SteinDiscrepancyDetector(flow).fit(many).bandwidth_ == pytest.approx(2.2, rel=0.1)
    assert SteinDiscrepancyDetector(flow).fit(np.ones((4, 3))).bandwidth_ == 1.0


class Rounding(nn.Module):
    """A density of the whole number below x: flat where it is not broken."""

    input_kind = "continuous"

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))

    def log_prob(self, X):
        return -((X.floor() - self.mean) ** 2).sum(1) + 1e-3 * X.sum(1)


def test_what_is_not_smooth_in_the_sample_is_refused(rng):
    images = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    with pytest.raises(TypeError, match=r"log_prob\(\) of VAE is not a smooth function"):
        SteinDiscrepancyDetector(VAE((1, 8, 8), width=4)).fit(images)
    with pytest.raises(TypeError, match=r"Rounding is not a smooth function"):
        SteinDiscrepancyDetector(Rounding()).fit(np.array([[1.0, 2.0], [0.0, 3.0]]))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("place", [1.0, 1e4])
def test_at_a_mode_rounding_is_no_kink(place, scale):
    mode = [place, -place, place / 3]
    SteinDiscrepancyDetector(gaussian(mode, [scale] * 3)).fit([mode, mode])
    net = GenerativeNet(DiagonalGaussian, max_epochs=1, random_state=0)
    assert SteinDiscrepancyDetector(net).fit(np.full((20, 3), place)).offset_ <= 0


class Distance(nn.Module):
    """Minus the distance from a point: at the point itself it has no gradient."""

    input_kind = "continuous"

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))

    def log_prob(self, X):
        return -((X - self.mean) ** 2).sum(1).sqrt()


def test_a_gradient_that_is_not_finite_is_told_as_such():
    detector = SteinDiscrepancyDetector(Distance()).fit([[1.0, 2.0], [0.0, 3.0]])
    assert np.isfinite(detector.offset_)
    with pytest.raises(ValueError, match=r"gradient of log_prob\(\) of Distance .* is NaN"):
        detector.fit([[0.0, 0.0], [0.0, 3.0]])


@pytest.mark.parametrize(
    ("scale", "shift"), [([1, 1, 1e4], 0.0), ([1, 1, 1], 1e6), ([1, 1, 1e-3], 0.0)]
)
def test_rectifiers_are_smooth_enough_whatever_the_unit_of_the_columns(rng, scale, shift):
    """The difference quotients take steps that are short beside the distribution's width."""
    X = rng.normal(size=(200, 3)) * scale + shift
    net = GenerativeNet(RealNVP, max_epochs=1, dtype="float64", random_state=0)
    assert np.isfinite(SteinDiscrepancyDetector(net).fit(X).score_samples(X)).all()


class Noisy(nn.Module):
    """A log-likelihood that draws noise for every sample."""

    input_kind = "continuous"

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def log_prob(self, X, generator=None):
        noise = torch.randn(X.shape, generator=generator, dtype=X.dtype)
        return -0.5 * ((X + noise - self.mean) ** 2).sum(1)


def test_noise_belongs_to_the_row(rng, untouched_global_state):
    X = rng.normal(size=(9, 2))
    detector = SteinDiscrepancyDetector(Noisy(), bandwidth=1.0, random_state=0).fit(X)
    together = detector.score_samples(X)
    alone = [detector.score_samples(x[None])[0] for x in X]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    other = SteinDiscrepancyDetector(Noisy(), bandwidth=1.0, random_state=1).fit(X)
    assert not np.allclose(other.score_samples(X), together)


def test_pixels_are_real_numbers_to_a_flow(rng, tmp_path):
    images = rng.integers(100, 156, (10, 1, 8, 8), dtype=np.uint8)
    net = GenerativeNet(
        Glow,
        module__n_steps=1,
        module__hidden_channels=4,
        max_epochs=1,
        dtype="float64",
        random_state=0,
    )
    detector = SteinDiscrepancyDetector(net, bandwidth=100.0).fit(images)
    module = detector.likelihood_model_.module.eval()
    pixels = torch.as_tensor(images).double().requires_grad_()
    (scores,) = torch.autograd.grad(module.log_prob(pixels).sum(), pixels)
    expected = scores.square().sum((1, 2, 3)) + 64 / 100.0**2
    np.testing.assert_allclose(detector.score_samples(images), -expected, rtol=1e-9)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.score_samples(images), detector.score_samples(images))


@pytest.mark.parametrize("kernel", ["imq", "rbf", "fisher"])
def test_extreme_rows_are_outliers_and_a_saved_detector_agrees(kernel, rng, tmp_path):
    X = rng.normal(size=(20, 2))
    net = GenerativeNet(
        RealNVP, module__n_layers=2, module__hidden=4, max_epochs=1, dtype="float64", random_state=0
    )
    detector = SteinDiscrepancyDetector(net, kernel=kernel).fit(X)
    scores = detector.score_samples([[1e200, 0.0], [-1e308, 1e308], X[0]])
    assert not np.isnan(scores).any()
    assert (scores[:2] < scores[2]).all()
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
    assert np.isfinite(SteinDiscrepancyDetector(net, kernel=kernel).fit(X[:1]).offset_)

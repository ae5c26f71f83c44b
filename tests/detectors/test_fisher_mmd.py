"""The discrepancy in the Fisher kernel against double loops over pairs, and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from skgradood import ConformalDetector, FisherMMDDetector, GenerativeNet
from skgradood.metrics import auroc
from skgradood.models import VAE, DiagonalGaussian, RealNVP
from skgradood.persistence import load, save
from skgradood.utils import make_groups
from tests.detectors.likelihoods import gaussian


@pytest.fixture
def flow():
    torch.manual_seed(0)
    module = RealNVP((3,), n_layers=2, hidden=4).double()
    with torch.no_grad():  # the last layers start at zero, and nothing before them has a gradient
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


def gradients(module, X):
    """All parameters' gradients of every sample as one vector, (n, P), by plain autograd."""
    rows = []
    for x in torch.as_tensor(X):
        found = torch.autograd.grad(
            module.log_prob(x[None]).sum(), list(module.parameters()), allow_unused=True
        )
        rows.append(
            torch.cat(
                [
                    torch.zeros(p.numel(), dtype=p.dtype) if g is None else g.flatten()
                    for g, p in zip(found, module.parameters(), strict=True)
                ]
            )
        )
    return torch.stack(rows).numpy()


def brute_force(kernel, X, Y, statistic):
    """The textbook's double sums over pairs of samples."""
    same = statistic == "biased"

    def mean_within(samples):
        pairs = itertools.product(range(len(samples)), repeat=2)
        return np.mean([kernel(samples[i], samples[j]) for i, j in pairs if same or i != j])

    between = np.mean([kernel(x, y) for x in X for y in Y])
    return mean_within(X) + mean_within(Y) - 2 * between


@pytest.mark.parametrize("statistic", ["biased", "unbiased"])
def test_is_the_double_sum_over_pairs(statistic, flow, rng):
    groups = rng.normal(size=(8, 3, 3))
    new = rng.normal(size=(2, 4, 3)) + 0.5
    detector = FisherMMDDetector(
        flow, statistic=statistic, damping=0.01, grouped=True, batch_size=3
    ).fit(groups)
    first = detector.halves_.in_first(torch.as_tensor(groups))
    assert 0 < first.sum() < len(groups)

    def expected(group, reference):
        scores = gradients(flow, reference.reshape(-1, 3))
        fisher = np.concatenate(
            [
                (block := np.mean(part**2, axis=0)) + 0.01 * block.mean()
                for part in np.split(
                    scores, np.cumsum([p.numel() for p in flow.parameters()])[:-1], axis=1
                )
            ]
        )
        with np.errstate(divide="ignore"):
            inverse = np.where(fisher > 0, 1 / fisher, 0.0)
        return -brute_force(
            lambda a, b: a @ (inverse * b), gradients(flow, group), scores, statistic
        )

    of_new = [expected(group, groups[first]) for group in new]
    np.testing.assert_allclose(detector.score_samples(new), of_new, rtol=1e-8)
    # Rows of either half are measured with the other.
    of_rows = [
        expected(g, groups[first if k else ~first]) for g, k in zip(groups, ~first, strict=True)
    ]
    np.testing.assert_allclose(detector.score_samples(groups), of_rows, rtol=1e-8)


def test_a_group_is_the_same_in_any_order_of_its_samples(flow, rng):
    groups = rng.normal(size=(8, 3, 3))
    detector = FisherMMDDetector(flow, grouped=True).fit(groups)
    expected = detector.score_samples(groups)
    np.testing.assert_allclose(detector.score_samples(groups[:, [2, 0, 1]]), expected, rtol=1e-8)


@pytest.mark.parametrize("approximation", ["kfac", "ekfac", "block"])
def test_every_approximation_gives_a_kernel(approximation, flow, rng):
    """MMD² of a group, of itself doubled, and of the reference itself, by their definition."""
    groups = rng.normal(size=(30, 4, 3))
    detector = FisherMMDDetector(flow, approximation=approximation, grouped=True).fit(groups)
    new = rng.normal(size=(1, 4, 3))
    np.testing.assert_allclose(
        detector.score_samples(np.concatenate([new, new], axis=1)),
        detector.score_samples(new),
        rtol=1e-7,
    )
    first = detector.halves_.in_first(torch.as_tensor(groups))
    whole = groups[first].reshape(1, -1, 3)
    assert detector.score_samples(whole)[0] == pytest.approx(0, abs=1e-10)


def test_of_a_gaussian_model_is_known():
    """Identity for F and 0 for the reference: the squares of the mean z / scale and z² - 1."""
    scale = np.array([0.5, 2.0])
    module = gaussian([1.0, -1.0], scale)
    groups = np.random.default_rng(0).normal(size=(6, 5, 2))
    detector = FisherMMDDetector(module, approximation="identity", reference="model", grouped=True)
    z = (groups - [1.0, -1.0]) / scale
    expected = ((z / scale).mean(1) ** 2 + (z**2 - 1).mean(1) ** 2).sum(1)
    np.testing.assert_allclose(detector.fit(groups).score_samples(groups), -expected, rtol=1e-9)


def test_the_unbiased_statistic_is_unbiased_and_the_other_is_not():
    """Of a shift by m standard deviations the population value is m² + m⁴ a dimension."""
    rng = np.random.default_rng(0)
    module = gaussian([0.0, 0.0], [1.0, 1.0])
    reference = rng.normal(size=(2000, 2, 2))
    for shift in (0.0, 0.5):
        groups = rng.normal(size=(4000, 4, 2)) + shift
        scores = {
            (statistic, source): -FisherMMDDetector(
                module,
                approximation="identity",
                statistic=statistic,
                reference=source,
                grouped=True,
            )
            .fit(reference)
            .score_samples(groups)
            for statistic, source in (
                ("unbiased", "model"),
                ("unbiased", "data"),
                ("biased", "model"),
            )
        }
        population = 2 * (shift**2 + shift**4)
        for source in ("model", "data"):
            values = scores["unbiased", source]
            # The reference's own mean is random, too, with a variance of about 6 / 2000.
            allowed = 4 * (
                values.std() / np.sqrt(len(values)) + (1 + shift) * 0.05 * (source == "data")
            )
            assert abs(values.mean() - population) < allowed, (shift, source)
        # Var z = 1 and Var z² = 2 + 4 m² a dimension, divided by B = 4.
        bias = 2 * (3 + 4 * shift**2) / 4
        assert scores["biased", "model"].mean() == pytest.approx(population + bias, rel=0.1)


def test_rao_statistic_of_the_model_reference():
    """On rows of the model B · MMD² has the mean of a chi-square of as many degrees."""
    rng = np.random.default_rng(1)
    module = gaussian(np.zeros(5), np.ones(5))
    detector = FisherMMDDetector(module, reference="model", damping=0.0, grouped=True)
    groups = rng.normal(size=(600, 10, 5))
    values = -10 * detector.fit(groups).score_samples(rng.normal(size=(600, 10, 5)))
    assert values.mean() == pytest.approx(10, abs=4 * np.sqrt(2 * 10 / 600) + 0.3)


def test_larger_groups_tell_more(rng):
    module = gaussian(np.zeros(4), np.ones(4))
    found = []
    for size in (1, 5, 25):
        inliers = make_groups(rng.normal(size=(3000, 4)), size, random_state=0)
        outliers = make_groups(rng.normal(size=(3000, 4)) + 0.4, size, random_state=0)
        detector = FisherMMDDetector(module, grouped=True).fit(inliers[::2])
        found.append(auroc(detector.score_samples(inliers[1::2]), detector.score_samples(outliers)))
    assert found[0] < 0.65 < found[1] < found[2]
    assert found[2] > 0.95


def test_training_groups_score_like_fresh_ones(rng):
    """In many dimensions a Fisher matrix knows its own rows; halves keep the threshold honest."""
    module = gaussian(np.zeros(100), np.ones(100))
    train, fresh = rng.normal(size=(2, 60, 2, 100))
    detector = FisherMMDDetector(module, approximation="block", grouped=True, contamination=0.2)
    detector.fit(train)
    assert 0.05 < (detector.predict(fresh) == -1).mean() < 0.4
    assert auroc(detector.score_samples(train), detector.score_samples(fresh)) < 0.65


def test_single_samples_are_groups_of_one(flow, rng):
    X = rng.normal(size=(20, 3))
    alone = FisherMMDDetector(flow).fit(X)
    groups = FisherMMDDetector(flow, grouped=True).fit(X[:, None])
    np.testing.assert_allclose(alone.score_samples(X), groups.score_samples(X[:, None]))
    with pytest.raises(ValueError, match=r"groups of two or more; got groups of 1"):
        FisherMMDDetector(flow, statistic="unbiased").fit(X)
    pairs = FisherMMDDetector(flow, statistic="unbiased", grouped=True).fit(X.reshape(10, 2, 3))
    with pytest.raises(ValueError, match=r"groups of two or more; got groups of 1"):
        pairs.score_samples(X[:, None])


def test_calibrated_extreme_one_row_and_constant(rng):
    groups = rng.normal(size=(120, 4, 2))
    module = DiagonalGaussian((2,)).double()
    detector = ConformalDetector(FisherMMDDetector(module, grouped=True), random_state=0)
    detector.fit(groups)
    assert (detector.predict(rng.normal(size=(200, 4, 2))) == -1).mean() < 0.15
    assert (detector.predict(groups + 3) == -1).all()
    plain = FisherMMDDetector(module).fit(groups[:, 0])
    scores = plain.score_samples([[1e200, 0.0], [-1e308, 1e308], [0.0, 0.0]])
    assert (scores[:2] == -np.inf).all()
    assert np.isfinite(scores[2])
    assert np.isfinite(FisherMMDDetector(module).fit(groups[0, :1]).score_samples(groups[0])).all()
    constant = FisherMMDDetector(module).fit(np.zeros((5, 2)))
    assert np.isfinite(constant.score_samples(np.zeros((2, 2)))).all()


@pytest.mark.parametrize("statistic", ["biased", "unbiased"])
def test_saved_with_images(statistic, rng, tmp_path):
    images = rng.integers(0, 256, (16, 8, 8), dtype=np.uint8)
    net = GenerativeNet(VAE, module__width=4, module__latent_dim=2, max_epochs=1, random_state=0)
    groups = make_groups(images, 2, random_state=0)
    detector = FisherMMDDetector(
        FrozenEstimator(net.fit(images)),
        approximation="diagonal",
        statistic=statistic,
        grouped=True,
    ).fit(groups)
    save(detector, tmp_path / "detector.skg")
    loaded = load(tmp_path / "detector.skg")
    for X in (groups, groups[:, ::-1], np.zeros_like(groups)):
        np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))
